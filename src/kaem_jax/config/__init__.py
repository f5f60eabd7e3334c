"""The run configuration: frozen dataclasses with every default, and the checks that refuse a bad one.

Imports nothing but the standard library, so a mistake is reported before anything heavy loads. Experiments edit the
dictionary of `default_dict`; `Config.from_dict` turns it back into dataclasses.
"""

from kaem_jax.config.image_settings import image_settings
from kaem_jax.config.reading import EXIT_REFUSED, ConfigError, check_overrides
from kaem_jax.config.schema import (
    BasisName,
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    GeneratorConfig,
    GridUpdateConfig,
    GroupConfig,
    LikelihoodConfig,
    OptimizerConfig,
    ParallelConfig,
    PosteriorConfig,
    PriorConfig,
    RegularizationConfig,
    TrainConfig,
    default_dict,
)

__all__ = [
    "EXIT_REFUSED",
    "BasisName",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "GridUpdateConfig",
    "GroupConfig",
    "LikelihoodConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PosteriorConfig",
    "PriorConfig",
    "RegularizationConfig",
    "TrainConfig",
    "check_overrides",
    "default_dict",
    "image_settings",
]
