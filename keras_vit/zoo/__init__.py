"""Models by name, checkpoints in and out, images in, class names out: what users call."""
