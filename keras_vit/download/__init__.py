"""Downloads of files into a cache folder."""
