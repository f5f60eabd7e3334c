"""An image that a user drops on the page, as the model sees it."""

import io

import numpy as np

from kaem_jax.data import DataError, Fit, without_lower_bits

__all__ = ["read_upload"]

_OPAQUE = 128  # pixels with less are missing, as in kaem_jax.data
_BLACK = (0, 0, 0, 255)


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
    from PIL import Image, ImageOps

    height, width = data_shape[:2]
    is_grey = data_shape[2:] != (3,)
    try:
        with Image.open(io.BytesIO(content)) as opened:
            turned = without_lower_bits(ImageOps.exif_transpose(opened))
            if turned.mode.startswith(("I", "F")):  # Pillow would clip their values
                raise ValueError(f"its pixels are of kind {turned.mode!r}; wanted: 8 or 16 bits")
            has_alpha = "A" in turned.getbands() or "transparency" in turned.info
            image, size, how = turned.convert("RGBA"), (width, height), Image.Resampling.BILINEAR
            fitted = ImageOps.pad(image, size, how, _BLACK) if fit == "pad" else ImageOps.fit(image, size, how)
    except Exception as error:  # each of Pillow's plug-ins raises types of its own
        raise DataError(f"this file cannot be read as an image: {error}") from None
    colours = fitted.convert("L" if is_grey else "RGB")
    values = np.asarray(colours, np.float32).reshape(data_shape) / 255
    if has_alpha:
        transparent = np.asarray(fitted.getchannel("A")) < _OPAQUE
        values = np.where(transparent.reshape(height, width, *[1] * (len(data_shape) - 2)), np.nan, values)
    return values.astype(np.float32)
