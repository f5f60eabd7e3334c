"""Posterior samplers. They know log-densities and weights, never a model's inside."""
