"""Experiments: their settings, the files that hold them, and the objects that a run makes of them."""
