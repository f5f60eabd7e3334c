"""Encoders: networks from a datum to a Gaussian approximation of its posterior (docs/method.md, section 13)."""

import math
from collections.abc import Sequence

from kaem_jax.kan.activations import activation_function
from kaem_jax.networks.encoder_base import Encoder, NnxEncoder
from kaem_jax.networks.encoder_networks import ConvEncoder, MlpEncoder, SequenceEncoder
from kaem_jax.networks.sequence import check_sequence
from kaem_jax.settings.arguments import as_shape, check_choice, refuse_unused

__all__ = ["ENCODER_KINDS", "make_encoder"]

ENCODER_KINDS = ("conv", "mlp", "sequence")
_OPTIONS = {
    "conv": ("hidden", "activation", "standardize", "readout_scale"),
    "mlp": ("hidden", "activation"),
    "sequence": ("vocabulary", "width", "num_blocks", "num_heads"),
}


def make_encoder(
    kind: str,
    *,
    data_shape: int | Sequence[int],
    event_shape: int | Sequence[int],
    hidden: int | Sequence[int] = (128, 128),
    activation: str = "silu",
    standardize: bool = False,
    readout_scale: float = 1.0,
    vocabulary: int = 0,
    width: int = 128,
    num_blocks: int = 2,
    num_heads: int = 4,
) -> Encoder:
    """Builds an encoder. It is static and hashable; its arrays come from `encoder.init(key)`.

    Args:
      kind: `mlp`, `conv` (convolutions that halve the image, one for each entry of `hidden`, then a dense layer), or
        `sequence` (self-attention over tokens).
      data_shape: shape of one datum.
      event_shape: shape of one latent, `prior.event_shape`.
      hidden: widths of the hidden layers; for a `conv`, their channels.
      activation: non-linearity after every hidden layer, a key of `ACTIVATIONS` except `none`.
      standardize: whether a `conv` reads pixels in [0, 1] as 4 x - 2, with mean 0 and standard deviation 1, about.
      readout_scale: above 0; the output of a `conv`'s dense layer is multiplied by it, and its initial kernel divided
        by it. Codes start the same, and one update of Adam moves them by `readout_scale` times as much.
      vocabulary, width, num_blocks, num_heads: of a `sequence`, which uses no other option; see `make_generator`.

    Raises:
      ValueError: an argument is unknown, out of range, or none of this kind; the message names it.
    """
    given = locals()
    check_choice("kind", kind, ENCODER_KINDS)
    refuse_unused(make_encoder, given, _OPTIONS)
    data_shape, event_shape, hidden = as_shape(data_shape), as_shape(event_shape), as_shape(hidden)
    if kind == "sequence":
        sizes = {"vocabulary": vocabulary, "width": width, "num_blocks": num_blocks, "num_heads": num_heads}
        check_sequence(data_shape, **sizes)
        sizes |= {"length": data_shape[0], "out_features": 2 * math.prod(event_shape)}
        return NnxEncoder(SequenceEncoder, tuple(sorted(sizes.items())), data_shape, event_shape)
    activation_function(activation)  # an unknown name is refused here, not when the network is built
    if not hidden or any(width < 1 for width in hidden):
        raise ValueError(f"hidden={hidden} must have entries of at least 1")
    options = {"activation": activation, "out_features": 2 * math.prod(event_shape)}
    if kind == "mlp":
        options |= {"in_features": math.prod(data_shape), "hidden": hidden}
        return NnxEncoder(MlpEncoder, tuple(sorted(options.items())), data_shape, event_shape)
    shrink = 2 ** len(hidden)
    if len(data_shape) != 3 or data_shape[0] < shrink or data_shape[1] < shrink:
        raise ValueError(
            f"a conv encoder with hidden={hidden} halves an image [height, width, channels] {len(hidden)} times, so "
            f"its sides must be at least {shrink}; the data have {data_shape}"
        )
    if not 0 < readout_scale < math.inf:
        raise ValueError(f"readout_scale={readout_scale} must be above 0 and finite")
    options |= {"data_shape": data_shape, "channels": hidden}
    options |= {"standardize": standardize, "readout_scale": readout_scale}
    return NnxEncoder(ConvEncoder, tuple(sorted(options.items())), data_shape, event_shape)
