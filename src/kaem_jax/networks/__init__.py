"""Networks: decoders from features to data, encoders from data to latents."""

from kaem_jax.networks.base import Decoder, Encoder, Network
from kaem_jax.networks.conv import ConvDecoder, ConvEncoder
from kaem_jax.networks.kan import KAN
from kaem_jax.networks.mlp import MLP
from kaem_jax.networks.sequence import SequenceDecoder, SequenceEncoder

__all__ = [
    "KAN", "MLP", "ConvDecoder", "ConvEncoder", "Decoder", "Encoder", "Network", "SequenceDecoder", "SequenceEncoder",
]  # fmt: skip
