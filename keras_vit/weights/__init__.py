"""Checkpoints: reading, writing, and the arguments of the models in them."""
