"""Conversion of checkpoints between layouts, their inspection and verification."""
