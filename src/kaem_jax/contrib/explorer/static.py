"""The page as one file: the model's arrays inside, decoded by the page itself."""

import base64
import math
import pathlib
from typing import Any

import numpy as np

from kaem_jax.contrib.explorer.page import render
from kaem_jax.contrib.explorer.session import Session
from kaem_jax.errors import ConfigError
from kaem_jax.files import replacing
from kaem_jax.likelihoods import Bernoulli, DiscretizedLogistic, Gaussian
from kaem_jax.model import Params
from kaem_jax.networks.base import NnxDecoder
from kaem_jax.networks.conv import ConvDecoder, first_shape, num_groups
from kaem_jax.networks.mlp import MLP
from kaem_jax.priors.base_density import BaseDensity, LearnableGaussian, Lognormal, Uniform
from kaem_jax.priors.base_density import Gaussian as GaussianBase
from kaem_jax.priors.cdf_table import CdfTable
from kaem_jax.priors.clustered import ClusteredTable
from kaem_jax.priors.tabulated import TabulatedPrior

__all__ = ["MAX_BYTES", "SCRIPTS", "embed", "write_static"]

MAX_BYTES = 5_000_000
SCRIPTS = ("densities.js", "decoder.js", "embedded.js")


def write_static(out: pathlib.Path, session: Session) -> int:
    """Writes the page with the model inside; returns its size in bytes.

    The tables of the densities are thinned to every second edge where that is what it takes.

    Raises:
      ConfigError: the page cannot decode such a model, or would be larger than `MAX_BYTES`.
    """
    for stride in (1, 2):
        page = render(session.describe(), SCRIPTS, embed(session, stride), connects=False).encode()
        if len(page) <= MAX_BYTES:
            break
    else:
        raise ConfigError(
            f"--static {out}: the page of this model would have {len(page) / 1e6:.1f} MB, and at most "
            f"{MAX_BYTES / 1e6:.0f} MB are allowed; explore it without --static"
        )
    with replacing(out) as temporary:
        temporary.write_bytes(page)
    return len(page)


def embed(session: Session, stride: int = 1) -> dict[str, Any]:
    """What the page decodes: JSON, with all arrays in one string of little-endian float32.

    Args:
      session: what is explored.
      stride: the tables of densities keep every `stride`-th edge, and the last.

    Raises:
      ConfigError: the prior, the decoder or the likelihood is of a kind that the page cannot decode.
    """
    run, arrays = session.run, _Arrays()
    prior = run.model.prior
    if not isinstance(prior, TabulatedPrior):
        raise ConfigError(
            f"--static needs a prior whose latents have tables of their own, and {type(run.model.prior).__name__} "
            f"with prior.parameterization={getattr(run.config.prior, 'parameterization', None)!r} has none; explore it "
            "without --static"
        )
    return {
        "decoder": _decoder(arrays, run.model.network, run.params["decoder"]),
        "likelihood": _likelihood(run.model.likelihood, run.params["likelihood"]),
        "densities": _densities(arrays, prior, session.table, stride),
        "arrays": arrays.encoded(),
    }


class _Arrays:
    """Arrays one after the other in one buffer; each is known by its place and its shape."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._size = 0

    def add(self, array: Any) -> dict[str, Any]:
        values = np.asarray(array, "<f4")
        place = {"first": self._size, "shape": list(values.shape)}
        self._parts.append(values.ravel())
        self._size += values.size
        return place

    def encoded(self) -> str:
        return base64.b64encode(np.concatenate(self._parts).tobytes()).decode()


def _densities(arrays: _Arrays, prior: TabulatedPrior, table: Any, stride: int) -> dict[str, Any]:
    """Densities at the edges of panels, and masses between: the page interpolates the CDF by cubics that have both.

    Masses, and not probabilities below the edges, whose differences have no digits where they are nearly 1.

    Row c has the densities of cluster c, and the last row the marginals, which are all there is without clusters.
    """
    log_proportions = mixing = None
    if isinstance(table, ClusteredTable):
        log_proportions = np.asarray(table.log_proportions).tolist()
        mixing = None if table.mixing is None else np.asarray(table.mixing).tolist()
        tables = [table.clusters, table.marginal]
    else:
        tables = [table]
    size = math.prod(prior.event_shape)
    rows = [_at_edges(t, size) for t in tables]
    below, mass, density, above = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    edges = np.asarray(tables[-1].edges).reshape(size, -1)
    # Where functions have kinks every edge may be at one.
    kept = np.unique([*range(0, edges.shape[1], 1 if prior.bank.kinks else stride), edges.shape[1] - 1])
    return {
        "log_proportions": log_proportions,
        "sums": list(prior.event_shape) if len(prior.event_shape) == 2 else None,
        "mixing": mixing,
        "edges": arrays.add(edges[:, kept]),
        "below": arrays.add(below),
        "mass": arrays.add(np.add.reduceat(mass, kept[:-1], axis=-1)),
        "density": arrays.add(density[..., kept]),
        "above": arrays.add(above),
        "base": _base(prior.base, tables[-1].base, size),
    }


def _at_edges(table: CdfTable, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Probability below the first edge [L, D], masses [L, D, M], densities [L, D, M + 1], probability above [L, D]."""
    edges, polynomial = (np.asarray(leaf, np.float64) for leaf in (table.edges, table.polynomial))
    width = np.maximum(np.diff(edges), np.finfo(np.float32).tiny)
    at_left = polynomial[..., 0] / width
    at_right = np.sum(polynomial * np.arange(1, polynomial.shape[-1] + 1), axis=-1) / width
    # An empty panel, at a kink that lies elsewhere, has no slope of its own.
    is_empty = np.diff(edges) <= 0
    at_left, at_right = (np.where(is_empty, np.nan, values) for values in (at_left, at_right))
    before = np.concatenate([at_left[..., :1], at_right], axis=-1)
    after = np.concatenate([at_left, at_right[..., -1:]], axis=-1)
    density = np.maximum(np.nan_to_num(np.where(np.isnan(after), before, after)), 0)
    lead, num_panels = (-1, size), edges.shape[-1] - 1
    return (
        np.asarray(table.lower)[..., 0].reshape(lead),
        polynomial.sum(axis=-1).reshape(*lead, num_panels),
        density.reshape(*lead, num_panels + 1),
        np.asarray(table.upper)[..., -1].reshape(lead),
    )


def _base(base: BaseDensity, params: dict[str, Any], size: int) -> dict[str, Any]:
    """Location and deviation of the base in the coordinate in which it is normal; its support where it has one."""
    if isinstance(base, Uniform):
        return {"kind": "uniform", "low": base.low, "high": base.high}
    mean, deviation = np.zeros(size), np.ones(size)
    if isinstance(base, LearnableGaussian):
        mean, deviation = np.asarray(params["mean"]), np.asarray(base.deviation(params))
    elif not isinstance(base, GaussianBase | Lognormal):
        raise ConfigError(f"--static cannot show a base density {type(base).__name__}")
    kind = "lognormal" if isinstance(base, Lognormal) else "normal"
    return {"kind": kind, "mean": mean.ravel().tolist(), "deviation": deviation.ravel().tolist()}


def _decoder(arrays: _Arrays, decoder: Any, params: Params) -> dict[str, Any]:
    if not isinstance(decoder, NnxDecoder) or decoder.module not in (MLP, ConvDecoder):
        raise ConfigError(
            "--static can decode decoder.kind='mlp' and 'conv', and this decoder is another: "
            f"{type(decoder).__name__}; explore it without --static"
        )
    options = dict(decoder.options)
    shared = {"activation": options["activation"], "output": decoder.output}

    def layer(name: str) -> dict[str, Any]:
        return {key: arrays.add(value) for key, value in params[name].items()}

    if decoder.module is MLP:
        return shared | {"kind": "mlp", "layers": [layer(f"dense_{i}") for i in range(len(options["widths"]) - 1)]}
    if options["dtype"] != "float32":
        raise ConfigError(
            f"--static decodes in float32 or more, and decoder.dtype={options['dtype']!r} has fewer digits; "
            "explore it without --static"
        )
    layers = [
        {
            "norm": layer(f"norm_{i}") | {"groups": num_groups(wide)} if options["group_norm"] else None,
            "up": layer(f"up_{i}"),
        }
        for i, wide in enumerate(options["channels"])
    ]
    return shared | {
        "kind": "conv",
        "start": list(first_shape(options["data_shape"], options["channels"])),
        "project": layer("project"),
        "layers": layers,
        "concatenates": options["concatenate_latent"],
    }


def _likelihood(likelihood: Any, params: Params) -> dict[str, Any]:
    """How the mean of the data follows from the decoder's output."""
    if type(likelihood) is Gaussian:
        return {"kind": "identity"}
    if type(likelihood) is Bernoulli:
        return {"kind": "sigmoid"}
    if type(likelihood) is DiscretizedLogistic:
        scale = np.exp(np.asarray(params["log_sigma"])) if likelihood.learn_sigma else np.asarray(likelihood.sigma)
        return {"kind": "logistic", "scales": np.atleast_1d(scale).tolist()}
    raise ConfigError(f"--static cannot decode a likelihood {type(likelihood).__name__}; explore it without --static")
