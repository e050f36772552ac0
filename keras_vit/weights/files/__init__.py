"""Kinds of files: bytes into arrays, nothing else."""
