"""Who is how fast: each contender in a process of its own, in turn."""
