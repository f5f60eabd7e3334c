"""Settings: classes whose fields are the settings, the registries of their kinds, and the reader of experiments.

A field, its type, its default, its range and its description stand once, in the class.
"""

from kaem_jax.settings.fields import Settings, positive, setting
from kaem_jax.settings.reading import apply_overrides, flatten, read, to_dict
from kaem_jax.settings.registry import Registry

__all__ = ["Registry", "Settings", "apply_overrides", "flatten", "positive", "read", "setting", "to_dict"]
