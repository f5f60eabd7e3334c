"""The density of a table, and its scikit-learn estimator."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from kaem_jax.tables.estimator import TableDensity

__all__ = ["TableDensity"]
