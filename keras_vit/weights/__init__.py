"""Checkpoints: files, conversion tables and strict loading. It knows no layer classes."""
