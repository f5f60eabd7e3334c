"""Generator networks, which map the prior's features to data space."""

import math
from collections.abc import Sequence

from kaem_jax.kan.activations import activation_function
from kaem_jax.kan.bases import Basis, make_basis
from kaem_jax.networks.base import OUTPUTS, Generator, NnxGenerator
from kaem_jax.networks.conv import ConvDecoder
from kaem_jax.networks.kan import KanGenerator
from kaem_jax.networks.mlp import MLP
from kaem_jax.networks.ngrams import check_ngrams
from kaem_jax.networks.sequence import SequenceDecoder, SequenceGenerator, check_sequence
from kaem_jax.settings.arguments import as_shape, check_choice, refuse_unused

__all__ = ["DTYPES", "GENERATOR_KINDS", "Generator", "make_generator"]

DTYPES = ("bfloat16", "float32")
GENERATOR_KINDS = ("conv", "kan", "mlp", "sequence")
_OPTIONS = {
    "conv": ("hidden", "activation", "output", "group_norm", "concatenate_latent", "dtype"),
    "kan": ("hidden", "output", "basis", "degree", "grid_size", "domain"),
    "mlp": ("hidden", "activation", "output"),
    "sequence": ("vocabulary", "width", "num_blocks", "num_heads", "context", "ngram_order", "ngram_bits"),
}


def make_generator(
    kind: str,
    *,
    in_features: int,
    data_shape: int | Sequence[int],
    hidden: int | Sequence[int] = (128, 128),
    activation: str = "silu",
    output: str = "identity",
    basis: Basis | str = "b_spline",
    degree: int | None = None,
    grid_size: int = 8,
    domain: tuple[float, float] = (-3.0, 3.0),
    group_norm: bool = False,
    concatenate_latent: bool = False,
    dtype: str = "float32",
    vocabulary: int = 0,
    width: int = 128,
    num_blocks: int = 2,
    num_heads: int = 4,
    context: int = 16,
    ngram_order: int = 0,
    ngram_bits: int = 22,
) -> Generator:
    """Builds a generator. It is static and hashable; its arrays come from `generator.init(key)`.

    Args:
      kind: `mlp`, `kan` (layers of function banks summed over their inputs), `conv` (a dense projection, then
        transposed convolutions that double the image, one for each entry of `hidden`), or `sequence` (causal
        self-attention, for texts).
      in_features: Q, `prior.num_features`.
      data_shape: shape of one datum.
      hidden: widths of the hidden layers; for a `conv`, their channels.
      activation: non-linearity after every hidden layer of an `mlp` or `conv`, a key of `ACTIVATIONS` except `none`.
      output: the last function: `identity`, `sigmoid` or `tanh` (shifted and halved, to [0, 1]).
      basis, degree, grid_size, domain: the function banks of a `kan`; see `make_prior`.
      group_norm, concatenate_latent: options of a `conv`; see `ConvDecoder`.
      dtype: arithmetic of a `conv`, `float32` or `bfloat16`; parameters keep the default float.
      vocabulary, width, num_blocks, num_heads, context: of a `sequence`, which uses no other option: the number of
        tokens, the width of its `num_blocks` blocks, and how many tokens each of them looks back at; 0: none, only at
        the features.
      ngram_order, ngram_bits: a `sequence` adds logits of hashed n-grams of at most `ngram_order` tokens, from a table
        of 2^ngram_bits entries; 0: none. See `HashedNgrams`.

    Raises:
      ValueError: an argument is unknown, out of range, or none of this kind; the message names it.
    """
    given = locals()
    check_choice("kind", kind, GENERATOR_KINDS)
    refuse_unused(make_generator, given, _OPTIONS)
    if kind == "sequence":
        sizes = {"vocabulary": vocabulary, "width": width, "num_blocks": num_blocks, "num_heads": num_heads}
        # Saved models without n-grams do not have these names among their options.
        ngrams = {"ngram_order": ngram_order, "ngram_bits": ngram_bits} if ngram_order else {}
        return _make_sequence(in_features, as_shape(data_shape), context, sizes, ngrams)
    check_choice("output", output, OUTPUTS)
    data_shape, hidden = as_shape(data_shape), as_shape(hidden)
    if any(width < 1 for width in (in_features, *hidden)):
        raise ValueError(f"in_features={in_features} and hidden={hidden} must be at least 1")
    widths = (in_features, *hidden, math.prod(data_shape))
    if kind == "mlp":
        activation_function(activation)  # an unknown name is refused here, not when the network is built
        options = (("activation", activation), ("widths", widths))
        return NnxGenerator(MLP, options, data_shape, output, in_features)
    if kind == "kan":
        family = make_basis(basis, **({} if degree is None else {"degree": degree}))
        low, high = map(float, domain)
        if grid_size < 1 or not low < high:
            raise ValueError(
                f"grid_size={grid_size} must be at least 1, and domain={domain!r} (low, high) with low < high"
            )
        return KanGenerator(widths, family, grid_size, (low, high), data_shape, output)
    # What is left is "conv".
    activation_function(activation)
    check_choice("dtype", dtype, DTYPES)
    shrink = 2 ** len(hidden)
    remedy = "; give grey images one channel, x[..., None]" if len(data_shape) == 2 else ""
    if not hidden or len(data_shape) != 3 or data_shape[0] % shrink or data_shape[1] % shrink:
        raise ValueError(
            f"a conv generator with hidden={hidden} doubles its image {len(hidden)} times and makes "
            f"[height, width, channels] with sides that are multiples of {shrink}; "
            f"the data have {data_shape}{remedy}"
        )
    settings = {
        "activation": activation,
        "channels": hidden,
        "concatenate_latent": concatenate_latent,
        "data_shape": data_shape,
        "dtype": dtype,
        "group_norm": group_norm,
        "in_features": in_features,
    }
    return NnxGenerator(ConvDecoder, tuple(settings.items()), data_shape, output, in_features)


def _make_sequence(
    in_features: int, data_shape: tuple[int, ...], context: int, sizes: dict[str, int], ngrams: dict[str, int]
) -> SequenceGenerator:
    check_sequence(data_shape, **sizes)
    if context < 0:
        raise ValueError(f"context={context} must be at least 0")
    vocabulary = sizes["vocabulary"]
    if ngrams:
        check_ngrams(ngrams["ngram_order"], ngrams["ngram_bits"], vocabulary)
    options = {"in_features": in_features, "length": data_shape[0], "context": context, **sizes, **ngrams}
    return SequenceGenerator(
        SequenceDecoder,
        tuple(sorted(options.items())),
        data_shape,
        vocabulary,
        in_features,
        is_autoregressive=context > 0 or bool(ngrams),
    )
