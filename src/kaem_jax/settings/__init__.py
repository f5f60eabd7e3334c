"""The run configuration: frozen dataclasses with every default, and the checks that refuse a wrong configuration.

Imports nothing but the standard library, so a mistake is reported before anything heavy loads. Experiments edit the
dictionary of `default_dict`; `Config.from_dict` turns it back into dataclasses.
"""

from kaem_jax.settings.evaluation import AutoEvaluation, EvaluationConfig
from kaem_jax.settings.image_settings import image_settings
from kaem_jax.settings.model import (
    CategoricalConfig,
    ClusteredConfig,
    ColumnsConfig,
    EncoderConfig,
    GeneratorConfig,
    LikelihoodConfig,
    PriorConfig,
    SequenceConfig,
)
from kaem_jax.settings.posterior import (
    ImportanceConfig,
    LangevinConfig,
    PosteriorConfig,
    TemperedConfig,
    VariationalConfig,
)
from kaem_jax.settings.reading import EXIT_REFUSED, ConfigError, check_overrides, settle
from kaem_jax.settings.schema import (
    CheckpointConfig,
    Config,
    DataConfig,
    GridUpdateConfig,
    GroupConfig,
    ParallelConfig,
    RegularizationConfig,
    default_dict,
)
from kaem_jax.settings.value_settings import value_settings

__all__ = [
    "EXIT_REFUSED",
    "AutoEvaluation",
    "CategoricalConfig",
    "CheckpointConfig",
    "ClusteredConfig",
    "ColumnsConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "GridUpdateConfig",
    "GroupConfig",
    "ImportanceConfig",
    "LangevinConfig",
    "LikelihoodConfig",
    "ParallelConfig",
    "PosteriorConfig",
    "PriorConfig",
    "RegularizationConfig",
    "SequenceConfig",
    "TemperedConfig",
    "VariationalConfig",
    "check_overrides",
    "default_dict",
    "image_settings",
    "settle",
    "value_settings",
]
