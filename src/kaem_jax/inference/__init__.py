"""Posteriors: proposals q(z | x), samplers, estimates of log p(x), and what a model says of data."""
