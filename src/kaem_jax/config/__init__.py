"""The run configuration: frozen dataclasses with every default, and the checks that refuse a wrong configuration.

Imports nothing but the standard library, so a mistake is reported before anything heavy loads. Experiments edit the
dictionary of `default_dict`; `Config.from_dict` turns it back into dataclasses.
"""

from kaem_jax.config.evaluation import AnnealedEvaluation, AutoEvaluation, EvaluationConfig, ImportanceEvaluation
from kaem_jax.config.image_settings import image_settings
from kaem_jax.config.model import (
    BernoulliConfig,
    ClusteredConfig,
    ColumnsConfig,
    ComonotoneConfig,
    ConvConfig,
    ConvEncoderConfig,
    EncoderConfig,
    GaussianConfig,
    GeneratorConfig,
    KanConfig,
    LikelihoodConfig,
    MixtureConfig,
    MlpConfig,
    MlpEncoderConfig,
    NeuralConfig,
    NoEncoderConfig,
    PriorConfig,
    ProductConfig,
)
from kaem_jax.config.posterior import (
    ImportanceConfig,
    LangevinConfig,
    PosteriorConfig,
    TemperedConfig,
    VariationalConfig,
)
from kaem_jax.config.reading import EXIT_REFUSED, ConfigError, check_overrides, settle
from kaem_jax.config.schema import (
    CheckpointConfig,
    Config,
    DataConfig,
    GridUpdateConfig,
    GroupConfig,
    OptimizerConfig,
    ParallelConfig,
    RegularizationConfig,
    TrainConfig,
    default_dict,
)
from kaem_jax.config.value_settings import value_settings

__all__ = [
    "EXIT_REFUSED",
    "AnnealedEvaluation",
    "AutoEvaluation",
    "BernoulliConfig",
    "CheckpointConfig",
    "ClusteredConfig",
    "ColumnsConfig",
    "ComonotoneConfig",
    "Config",
    "ConfigError",
    "ConvConfig",
    "ConvEncoderConfig",
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "GaussianConfig",
    "GeneratorConfig",
    "GridUpdateConfig",
    "GroupConfig",
    "ImportanceConfig",
    "ImportanceEvaluation",
    "KanConfig",
    "LangevinConfig",
    "LikelihoodConfig",
    "MixtureConfig",
    "MlpConfig",
    "MlpEncoderConfig",
    "NeuralConfig",
    "NoEncoderConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PosteriorConfig",
    "PriorConfig",
    "ProductConfig",
    "RegularizationConfig",
    "TemperedConfig",
    "TrainConfig",
    "VariationalConfig",
    "check_overrides",
    "default_dict",
    "image_settings",
    "settle",
    "value_settings",
]
