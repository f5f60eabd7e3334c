"""Posteriors: proposals q(z | x), samplers, estimates of log p(x), encoding, imputation, finite mixtures."""
