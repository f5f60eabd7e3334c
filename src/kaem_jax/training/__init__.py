"""Losses, the optimiser, the jitted step, and training in one call."""
