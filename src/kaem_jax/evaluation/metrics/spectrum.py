"""The power of fields at each wave number."""

import numpy as np

__all__ = ["radial_spectrum"]


def radial_spectrum(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of the two-dimensional Fourier transform on rings of whole wave numbers.

    Args:
      fields: [N, H, W].

    Returns:
      wave numbers 1, 2, ... up to half the shorter side, and the power at each, averaged over the ring and the fields.
      By Parseval's theorem, power is that of a field whose mean square is 1 where it is 1 in total.
    """
    height, width = fields.shape[1:]
    power = np.mean(np.abs(np.fft.fft2(fields)) ** 2, axis=0) / (height * width) ** 2
    along = [np.fft.fftfreq(size, 1 / size) for size in (height, width)]
    ring = np.round(np.hypot(*np.meshgrid(*along, indexing="ij"))).astype(int)
    wave_numbers = np.arange(1, min(height, width) // 2 + 1)
    return wave_numbers, np.array([power[ring == k].mean() for k in wave_numbers])
