"""Evaluators with the numbers they compute, figures and the report."""
