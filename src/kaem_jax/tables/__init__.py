"""The density of a table, and its scikit-learn estimator."""
