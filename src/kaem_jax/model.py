"""The model: a static bundle of prior, decoder and likelihood with pure methods."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from kaem_jax.likelihoods import Likelihood
from kaem_jax.networks import Decoder, Encoder, Network
from kaem_jax.priors import BoundPrior, Prior
from kaem_jax.settings import setting
from kaem_jax.settings.arguments import as_shape, at_least_float32, check_key, check_latent
from kaem_jax.settings.registry import DECODERS, LIKELIHOODS, PRIORS

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """z ~ prior, v = features(z), x ~ likelihood(decoder(v)). Static and hashable: pass parameters as arguments.

    Arguments of the methods: `params` as `init` returns them; `z`, latents [..., *prior.event_shape]; `x`, data
    [B, *data_shape]; `prior`, `model.prior.bind(params["prior"])`, bound if left out.

    Attributes:
      prior: p(z).
      decoder: the settings of a network, or a `Decoder` of fixed sizes.
      likelihood: p(x | output).
      data_shape: shape of one datum; may be left out if a `Decoder` of fixed sizes has it.

    Raises:
      ValueError: a part has a wrong type, or does not fit the others. Methods: the decoder's output does not have its
        declared shape, or `x` is not [B, *data_shape] with B > 0.

    Example:
      >>> model = kaem.Model(kaem.ClusteredPrior(num_latents=6), kaem.MLP(), kaem.Gaussian(0.2), data_shape=(8, 8))
      >>> params = model.init(key)
      >>> model.sample(key, params, 16).shape
      (16, 8, 8)
    """

    prior: Prior = setting(kinds=PRIORS)
    decoder: Network | Decoder = setting(kinds=DECODERS)
    likelihood: Likelihood = setting(kinds=LIKELIHOODS)
    data_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, kinds, example in (
            ("prior", Prior, "ClusteredPrior(num_latents=6)"),
            ("decoder", (Network, Decoder), "MLP()"),
            ("likelihood", Likelihood, "Gaussian(0.3)"),
        ):
            if not isinstance(part := vars(self)[name], kinds):
                raise ValueError(f"{name}={part!r} is not a {name}; give an object, such as kaem_jax.{example}")
        shape = self.decoder.data_shape if isinstance(self.decoder, Decoder) else ()
        object.__setattr__(self, "data_shape", as_shape(self.data_shape) or shape)
        if (shape and self.data_shape != shape) or not self.data_shape:
            raise ValueError(
                f"data_shape={self.data_shape} must be the shape of one datum, {shape or 'such as (8, 8)'}"
            )
        wanted, given = self.network.in_features, self.prior.num_features
        if wanted is not None and wanted != given:
            raise ValueError(f"the decoder has in_features={wanted} and the prior gives {given} features")
        self.likelihood.check_output(self.network.output_shape)
        if self.network.output != "identity" and self.likelihood.takes_logits:
            raise ValueError(
                f"likelihood={self.likelihood} takes logits, and the decoder has output={self.network.output!r}: give "
                "'identity'"
            )

    @functools.cached_property
    def network(self) -> Decoder:
        """The decoder with the sizes of this model."""
        if not isinstance(self.decoder, Network):
            return self.decoder
        output_shape = self.likelihood.output_shape(self.data_shape)
        return self.decoder.decoder(self.prior.num_features, self.data_shape, output_shape)

    def bind_encoder(self, encoder: Network | Encoder) -> Encoder:
        """An encoder with the sizes of this model."""
        if not isinstance(encoder, Network):
            return encoder
        num_tokens = self.likelihood.output_shape(self.data_shape)[-1] if self.likelihood.takes_tokens else 0
        return encoder.encoder(self.data_shape, self.prior.event_shape, num_tokens)

    def init(self, key: Array) -> Params:
        """Initial parameters {"prior": ..., "decoder": ..., "likelihood": ...}."""
        check_key(key)
        key_prior, key_decoder, key_likelihood = jax.random.split(key, 3)
        return {
            "prior": self.prior.init(key_prior),
            "decoder": self.network.init(key_decoder),
            "likelihood": self.likelihood.init(key_likelihood),
        }

    def decode(self, params: Params, z: Array, prior: BoundPrior | None = None) -> Array:
        """E[x | z], [..., *data_shape]; tokens, which have no mean, are decoded greedily."""
        no_key = jax.random.key(0)  # means need none
        return self._of_output(
            lambda _, output: self.likelihood.mean(params["likelihood"], output), no_key, params, z, prior
        )

    @functools.partial(jax.jit, static_argnums=(0, 3), static_argnames="n")
    def sample(self, key: Array, params: Params, n: int) -> Array:
        """Draws x ~ p(x) in one pass, [n, *data_shape]; exact if `prior.has_exact_draws`."""
        check_key(key)
        key_latent, key_noise = jax.random.split(key)
        prior = self.prior.bind(params["prior"])
        return self.simulate(key_noise, params, prior.sample(key_latent, (n,)), prior)

    @functools.partial(jax.jit, static_argnums=(0, 3), static_argnames="n")
    def sample_means(self, key: Array, params: Params, n: int) -> Array:
        """E[x | z] at draws z of the prior, [n, *data_shape]: images without the likelihood's noise."""
        check_key(key)
        prior = self.prior.bind(params["prior"])
        return self.decode(params, prior.sample(key, (n,)), prior)

    def simulate(self, key: Array, params: Params, z: Array, prior: BoundPrior | None = None) -> Array:
        """Draws x ~ p(x | z), [..., *data_shape]."""
        return self._of_output(
            lambda key, output: self.likelihood.sample(key, params["likelihood"], output), key, params, z, prior
        )

    def log_likelihood(self, params: Params, z: Array, x: Array, prior: BoundPrior | None = None) -> Array:
        """Log p(x_b | z_b) of pairs: z [..., B, *event_shape], x [B, *data_shape] -> [..., B] nats."""
        x = self._flatten(x)
        return self.likelihood.log_prob(params["likelihood"], self._flat_output(params, z, prior, x), x)

    def log_joint(self, params: Params, z: Array, x: Array, prior: BoundPrior | None = None) -> Array:
        """Log p(x_b, z_b) of pairs: z [..., B, *event_shape], x [B, *data_shape] -> [..., B] nats."""
        prior = self.prior.bind(params["prior"]) if prior is None else prior
        return prior.log_prob(z) + self.log_likelihood(params, z, x, prior)

    def pairwise_log_likelihood(self, params: Params, z: Array, x: Array, prior: BoundPrior | None = None) -> Array:
        """Log p(x_b | z_s) of every pair by S decoder calls: z [S, *event_shape], x [B, *data_shape] -> [B, S] nats."""
        x = self._flatten(x)
        if self.network.is_autoregressive:  # an output for every pair
            z = check_latent(z, self.prior.event_shape, "z")
            return jax.lax.map(lambda one: self.log_likelihood(params, z[:, None], one[None], prior)[:, 0], x)
        return self.likelihood.pairwise_log_prob(params["likelihood"], self._flat_output(params, z, prior), x)

    def output(self, params: Params, z: Array, prior: BoundPrior | None = None, x: Array | None = None) -> Array:
        """The decoder's output, the likelihood's parameter: [..., *data_shape], or [..., T, V] for tokens.

        Args:
          x: [B, *data_shape], which only an autoregressive decoder reads; z is then [..., B, *event_shape].

        Raises:
          ValueError: the decoder is autoregressive, and x is None.
        """
        if self.network.is_autoregressive and x is None:
            raise ValueError("this decoder reads the values before each value: give x, or take `simulate`")
        decoder, features = self._decoder_inputs(params, z, prior)
        arguments = (features, x) if self.network.is_autoregressive else (features,)
        output = self.network.apply(decoder, *arguments)
        # An autoregressive output may have the axes of x in front.
        lead = (
            output.shape[: -len(self.network.output_shape)] if self.network.is_autoregressive else features.shape[:-1]
        )
        wanted = (*lead, *self.network.output_shape)
        if output.shape != wanted:  # JAX would broadcast it against the data silently
            raise ValueError(
                f"the decoder makes an output of shape {output.shape} of features of shape {features.shape}; its "
                f"data_shape, or output_shape, asks for {wanted}"
            )
        return at_least_float32(output)

    def _decoder_inputs(self, params: Params, z: Array, prior: BoundPrior | None) -> tuple[Params, Array]:
        z = check_latent(z, self.prior.event_shape, "z")
        if prior is None:
            prior = self.prior.bind(params["prior"])
        # Parameters may be NumPy arrays, from a file or `device_get`: these cannot be indexed by traced arrays.
        return jax.tree.map(jnp.asarray, params["decoder"]), prior.features(z)

    def _flat_output(self, params: Params, z: Array, prior: BoundPrior | None, x: Array | None = None) -> Array:
        """The output with the axes of a datum flattened: [..., D], or [..., T V] for tokens; x is [B, D]."""
        output = self.output(params, z, prior, None if x is None else x.reshape(-1, *self.data_shape))
        return output.reshape(
            *output.shape[: output.ndim - len(self.network.output_shape)], math.prod(self.network.output_shape)
        )

    def _of_output(
        self, function: Callable[[Array, Array], Array], key: Array, params: Params, z: Array, prior: BoundPrior | None
    ) -> Array:
        """Data [..., *data_shape] from `function` of a key and the output; value by value if autoregressive."""
        if not self.network.is_autoregressive:
            x = function(key, self._flat_output(params, z, prior))
            return x.reshape(*x.shape[:-1], *self.data_shape)
        decoder, features = self._decoder_inputs(params, z, prior)
        return self.network.roll_out(key, decoder, features, lambda key, output: function(key, output)[..., 0])

    def _flatten(self, x: Any) -> Array:
        x = jnp.asarray(x)
        if x.dtype == jnp.uint8 and not self.likelihood.takes_tokens:
            raise ValueError("x has dtype uint8; the model takes floats on the scale of its likelihood: divide by 255")
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)
        if x.ndim != 1 + len(self.data_shape) or x.shape[1:] != self.data_shape:
            wanted = ", ".join(["B", *map(str, self.data_shape)])
            raise ValueError(f"x has shape {x.shape}; this model takes [{wanted}]")
        if x.shape[0] == 0:
            raise ValueError("x holds no data: give one at least")
        return at_least_float32(x.reshape(x.shape[0], -1))  # centring in 16 bits would lose nats


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Parameters under names such as "prior/bank/grid"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def check_params(model: Model, params: Any, what: str = "params") -> None:
    """Compares parameters with those of the model, leaf by leaf; ignores other groups, such as a sampler's.

    Raises:
      ValueError: a leaf is missing, unknown, of a wrong shape, or not a float; the message begins with `what`.
    """
    template = jax.eval_shape(model.init, jax.random.key(0))
    expected, found = leaves_by_name(template), leaves_by_name(params)
    found = {name: leaf for name, leaf in found.items() if name.partition("/")[0] in template}
    for name in sorted(expected.keys() ^ found.keys()):
        raise ValueError(f"{what}: {name} is {'missing' if name in expected else 'unknown to this model'}")
    for name, leaf in expected.items():
        if jnp.shape(found[name]) != leaf.shape:
            raise ValueError(f"{what}: {name} has shape {jnp.shape(found[name])}, the model needs {leaf.shape}")
        kind = jnp.result_type(found[name])
        if not (
            kind == leaf.dtype or (jnp.issubdtype(kind, jnp.floating) and jnp.issubdtype(leaf.dtype, jnp.floating))
        ):
            raise ValueError(f"{what}: {name} has dtype {kind}, the model needs {leaf.dtype}")
