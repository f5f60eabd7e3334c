"""The features of the usual FID: InceptionV3 as torch-fidelity ships it."""

import numpy as np

from kaem_jax.app.evaluation.features.base import Extractor
from kaem_jax.errors import ConfigError, first_line

_NUM_FEATURES = 2048


def inception_extractor(weights: str | None) -> Extractor:
    """The 2,048 pooled features of the network of the original TensorFlow FID; grey images are repeated to RGB.

    `weights` is torch-fidelity's .pth file, or None for its cache, which it fills by a download.
    """
    try:
        import torch
        from torch_fidelity import feature_extractor_inceptionv3 as fidelity
    except ImportError as error:
        raise ConfigError(
            f"features inception need torch-fidelity ({error}): pip install -e '.[inception]' in the clone"
        ) from None
    try:
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(_NUM_FEATURES)], feature_extractor_weights_path=weights, verbose=False
        )
    except Exception as error:  # from urllib, torch or pickle, depending on what went wrong
        where = f"read from {weights}" if weights else f"downloaded from {fidelity.URL_INCEPTION_V3}"
        raise ConfigError(
            f"features inception: the weights cannot be {where} ({first_line(error)}); fetch that address "
            "where there is a network and give the file as inception:FILE"
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)

    def features(pixels: np.ndarray) -> np.ndarray:
        rgb = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
        with torch.no_grad():
            (pooled,) = network(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))).to(device))
        return pooled.cpu().numpy()

    return Extractor(f"inception-v3-compat:{_NUM_FEATURES} (torch-fidelity)", features)
