"""Files from the network, in a cache folder."""
