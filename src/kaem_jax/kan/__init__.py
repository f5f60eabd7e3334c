"""Univariate function banks: basis families, base activations and the banks built from them."""
