"""Layouts of checkpoints: a table of names and array moves for each family."""
