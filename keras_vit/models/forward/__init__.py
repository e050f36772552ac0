"""The forward pass of one image, written down as the steps that cost something."""
