"""Settings: classes whose fields are the settings, registries of kinds, and the reader of experiments."""

from kaem_jax.settings.fields import Settings, setting
from kaem_jax.settings.reading import apply_overrides, flatten, read, to_dict
from kaem_jax.settings.registry import Registry

__all__ = ["Registry", "Settings", "apply_overrides", "flatten", "read", "setting", "to_dict"]
