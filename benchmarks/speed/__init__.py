"""Comparison of speed: contenders take turns, each in a process of its own."""
