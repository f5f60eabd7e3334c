"""An image that a user drops on the page, as the model sees it."""

import io

import numpy as np

from kaem_jax.data.folder import FORMATS, Fit, masked_pixels
from kaem_jax.errors import DataError

__all__ = ["read_upload"]


def read_upload(content: bytes, data_shape: tuple[int, ...], fit: Fit = "crop") -> np.ndarray:
    """The content of an image file, cropped or padded with black, and scaled to the model's height and width.

    Args:
      content: of a PNG or JPEG file, or whatever else Pillow reads.
      data_shape: [H, W], [H, W, 1] or [H, W, 3].
      fit: as the training data were fitted.

    Returns:
      float32 [*data_shape] in [0, 1], NaN where a pixel is transparent.

    Raises:
      DataError: it is no image.
    """
    from PIL import Image

    size, channels = (data_shape[1], data_shape[0]), "rgb" if data_shape[2:] == (3,) else "grey"
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            return masked_pixels(opened, size, fit, channels).reshape(data_shape)
    except Exception as error:  # each of Pillow's plug-ins raises types of its own
        raise DataError(f"this file cannot be read as an image: {error}") from None
