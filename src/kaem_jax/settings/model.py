"""Settings of the model: one dataclass for each kind of prior, generator, encoder and likelihood."""

import dataclasses
from typing import Literal

from kaem_jax.settings import registry
from kaem_jax.settings.fields import bounded, registered

__all__ = [
    "BernoulliConfig",
    "CategoricalConfig",
    "ClusteredConfig",
    "ColumnsConfig",
    "ComonotoneConfig",
    "ConvConfig",
    "ConvEncoderConfig",
    "DiscretizedLogisticConfig",
    "EncoderConfig",
    "GaussianConfig",
    "GeneratorConfig",
    "KanConfig",
    "LikelihoodConfig",
    "MixtureConfig",
    "MlpConfig",
    "MlpEncoderConfig",
    "NeuralConfig",
    "NoEncoderConfig",
    "PriorConfig",
    "ProductConfig",
    "SequenceConfig",
    "SequenceEncoderConfig",
]

ActivationName = Literal[
    "identity", "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid", "elu", "selu", "celu", "hard_swish"
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prior:
    kind: str
    outer: int = bounded(5, low=1)
    base_activation: ActivationName | Literal["none"] = "silu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bank(_Prior):
    inner: int = bounded(8, low=1)
    basis: str = registered("b_spline", registry.BASES)
    degree: int = bounded(3, low=1, high=5)  # for families that have a degree
    reference: Literal["flat", "gaussian", "learnable_gaussian", "lognormal", "uniform"] = "gaussian"
    domain: tuple[float, float] = (-3.0, 3.0)
    grid_size: int = bounded(20, low=1)
    coefficient_scale: float = bounded(0.1, low=0)
    base_scale: float = bounded(0.1, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductConfig(_Bank):
    """Independent latents [Q, P]; see `kaem_jax.make_prior`."""

    kind: Literal["product"] = "product"
    parameterization: Literal["centred", "non_centred"] = "centred"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureConfig(_Bank):
    """Latents [Q], each a mixture of P densities; see `kaem_jax.make_prior`."""

    kind: Literal["mixture"] = "mixture"
    parameterization: Literal["centred", "non_centred"] = "centred"
    proportions: Literal["learned", "uniform"] = "uniform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusteredConfig(_Bank):
    """Latents [Q]; P clusters, each a product of densities; see `kaem_jax.make_prior`."""

    kind: Literal["clustered"] = "clustered"
    proportions: Literal["learned", "uniform"] = "uniform"
    num_classes: int = bounded(0, low=0)  # with data.labels: how many classes the clusters belong to
    mixing: Literal["learned", "none"] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComonotoneConfig(_Bank):
    """One uniform variable for each p determines all q; see `kaem_jax.make_prior`."""

    kind: Literal["comonotone"] = "comonotone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralConfig(_Prior):
    """The baseline, with a multilayer perceptron as its energy; see `kaem_jax.make_prior`."""

    kind: Literal["neural"] = "neural"
    hidden: tuple[int, ...] = bounded((200, 200), low=1)
    num_steps: int = bounded(60, low=1)
    step_size: float = bounded(0.08, above=0)


PriorConfig = ClusteredConfig | ComonotoneConfig | MixtureConfig | NeuralConfig | ProductConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Generator:
    kind: str
    hidden: tuple[int, ...] = bounded((128, 128), low=1)
    output: Literal["identity", "sigmoid", "tanh"] = "sigmoid"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpConfig(_Generator):
    """A multilayer perceptron; see `kaem_jax.make_generator`."""

    kind: Literal["mlp"] = "mlp"
    activation: ActivationName = "silu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KanConfig(_Generator):
    """A Kolmogorov-Arnold network; see `kaem_jax.make_generator`."""

    kind: Literal["kan"] = "kan"
    basis: str = registered("b_spline", registry.BASES)
    degree: int = bounded(3, low=1, high=5)  # for families that have a degree
    grid_size: int = bounded(8, low=1)
    domain: tuple[float, float] = (-3.0, 3.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvConfig(_Generator):
    """Transposed convolutions; see `kaem_jax.make_generator`."""

    kind: Literal["conv"] = "conv"
    activation: ActivationName = "silu"
    group_norm: bool = False
    concatenate_latent: bool = False
    dtype: Literal["bfloat16", "float32"] = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sequence:
    """Blocks of self-attention over tokens."""

    kind: Literal["sequence"] = "sequence"
    width: int = bounded(128, low=1)
    num_blocks: int = bounded(2, low=1)
    num_heads: int = bounded(4, low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConfig(_Sequence):
    """Causal self-attention; see `kaem_jax.make_generator`."""

    context: int = bounded(16, low=0)  # tokens before it that each block looks back at; 0: only the features
    ngram_order: int = bounded(0, low=0, high=16)  # longest hashed n-grams whose logits are added; 0: none
    ngram_bits: int = bounded(22, low=8, high=30)  # logarithm (base 2) of the entries of their table


GeneratorConfig = ConvConfig | KanConfig | MlpConfig | SequenceConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoEncoderConfig:
    """Posteriors need no encoder."""

    kind: Literal["none"] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Encoder:
    kind: str
    hidden: tuple[int, ...] = bounded((128, 128), low=1)
    activation: ActivationName = "silu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpEncoderConfig(_Encoder):
    """A multilayer perceptron; see `kaem_jax.make_encoder`."""

    kind: Literal["mlp"] = "mlp"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvEncoderConfig(_Encoder):
    """Convolutions; see `kaem_jax.make_encoder`."""

    kind: Literal["conv"] = "conv"
    standardize: bool = False  # pixels to mean 0 and standard deviation 1, about
    # an update moves codes by this share of what it would move them otherwise
    readout_scale: float = bounded(1.0, above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceEncoderConfig(_Sequence):
    """Self-attention; see `kaem_jax.make_encoder`."""


EncoderConfig = ConvEncoderConfig | MlpEncoderConfig | NoEncoderConfig | SequenceEncoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scaled:
    """The scale sigma is in the units of the data: fixed, learned from `sigma` on, or annealed to it.

    Annealing starts at `anneal_from` and is geometric over `anneal_steps` updates; 0 in both is none.
    """

    kind: str
    sigma: float = bounded(0.3, above=0)
    learn_sigma: bool = True
    per_channel: bool = False  # one scale for each channel of images [H, W, C]
    anneal_from: float = bounded(0.0, low=0)
    anneal_steps: int = bounded(0, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianConfig(_Scaled):
    """N(x; output, sigma^2); see `_Scaled`."""

    kind: Literal["gaussian"] = "gaussian"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscretizedLogisticConfig(_Scaled):
    """Probabilities of the `levels` values of a pixel; see `kaem_jax.likelihoods.DiscretizedLogistic`."""

    kind: Literal["discretized_logistic"] = "discretized_logistic"
    levels: int = bounded(256, low=2, high=65536)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BernoulliConfig:
    """Independent Bernoulli values whose logits are the generator's output."""

    kind: Literal["bernoulli"] = "bernoulli"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnsConfig:
    """Columns of a table, numbers with a scale each and categories; see `kaem_jax.likelihoods.Columns`."""

    kind: Literal["columns"] = "columns"
    sigma: float = bounded(0.3, above=0)
    learn_sigma: bool = True
    min_sigma: float = bounded(0.01, above=0)
    sizes: tuple[int, ...] = bounded((), low=1)  # of the columns; training fills them in from the data


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoricalConfig:
    """Tokens of texts; see `kaem_jax.likelihoods.Categorical`."""

    kind: Literal["categorical"] = "categorical"
    vocabulary: int = bounded(0, low=0)  # how many tokens there are; training fills it in from the data


LikelihoodConfig = BernoulliConfig | CategoricalConfig | ColumnsConfig | DiscretizedLogisticConfig | GaussianConfig
