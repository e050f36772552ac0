"""Kinds of files: from bytes to arrays."""
