"""Published peak figures of accelerators."""

from typing import NamedTuple


class Chip(NamedTuple):
    """One chip, or one GPU.

    Attributes:
      memory: bytes.
      flops: operations per second in products of float32 arrays at JAX's default precision, bfloat16 on TPUs and TF32
        on GPUs; on GPUs products of bfloat16 arrays are twice as fast.
      clock: cycles per second, None if XLA's schedules do not count cycles.
      source: where the figures are published.
    """

    memory: float
    flops: float
    clock: float | None
    source: str


_CLOUD = "https://cloud.google.com/tpu/docs"

CHIPS = {  # by jax.Device.device_kind
    "TPU v4": Chip(32e9, 275e12, 1.05e9, f"{_CLOUD}/v4"),
    "TPU v5 lite": Chip(16e9, 197e12, 1.5e9, f"{_CLOUD}/v5e"),
    "TPU v5": Chip(95e9, 459e12, 1.75e9, f"{_CLOUD}/v5p"),
    "TPU v6 lite": Chip(32e9, 918e12, 1.75e9, f"{_CLOUD}/v6e"),
    "NVIDIA H100 80GB HBM3": Chip(80e9, 495e12, None, "https://www.nvidia.com/en-us/data-center/h100"),
}
