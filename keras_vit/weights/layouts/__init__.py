"""The layouts of checkpoints: a table for each family, and the moves of arrays."""
