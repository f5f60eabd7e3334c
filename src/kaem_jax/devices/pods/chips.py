"""Published peak figures of accelerators."""

from typing import NamedTuple

__all__ = ["CHIPS", "Chip"]


class Chip(NamedTuple):
    """One chip, or one GPU.

    Attributes:
      memory: bytes.
      flops: operations per second in products of float32 arrays at JAX's default precision, bfloat16 on TPUs and TF32
        on GPUs; on GPUs products of bfloat16 arrays are twice as fast.
      memory_bandwidth: bytes/s.
      link_bandwidth: bytes/s that leave the chip over all its links together, half of the published sum of both ways.
      latency: seconds for a message to the next chip; not published: a usual figure.
      source: where the figures are published.
    """

    memory: float
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    latency: float
    source: str


_CLOUD = "https://cloud.google.com/tpu/docs"

CHIPS = {  # by jax.Device.device_kind
    "TPU v4": Chip(32e9, 275e12, 1228e9, 150e9, 1e-6, f"{_CLOUD}/v4"),
    "TPU v5 lite": Chip(16e9, 197e12, 819e9, 200e9, 1e-6, f"{_CLOUD}/v5e"),
    "TPU v5": Chip(95e9, 459e12, 2765e9, 600e9, 1e-6, f"{_CLOUD}/v5p"),
    "TPU v6 lite": Chip(32e9, 918e12, 1638e9, 400e9, 1e-6, f"{_CLOUD}/v6e"),
    "NVIDIA H100 80GB HBM3": Chip(80e9, 495e12, 3350e9, 450e9, 2e-6, "https://www.nvidia.com/en-us/data-center/h100"),
}
