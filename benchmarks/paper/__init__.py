"""The ViT paper's table of results, measured again."""
