"""Checkpoints from one layout to another, inspected and verified."""
