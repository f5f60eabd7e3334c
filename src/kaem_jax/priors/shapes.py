"""Axes and shapes of the clusters of a fitted Gaussian mixture (docs/method.md, section 14).

FastICA rotates each cluster's whitened coordinates to be as independent as possible. The density of each coordinate is
then fitted by penalised maximum likelihood, weighted by responsibilities. Both are kept only where they raise the
likelihood of held-out latents.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, special

from kaem_jax.priors import affine
from kaem_jax.priors.base import Params
from kaem_jax.priors.clustered import DOMAIN, ClusteredPrior

_NUM_BINS = 512  # of the domain, by which coordinates are counted
_PENALTIES = (300.0, 30.0, 3.0, 0.3)  # on squared second differences of coefficients
_RIDGE = 1e-3
_NUM_ROTATIONS = 50  # steps of FastICA
_NUM_TURNS, _NUM_NEWTON_TURNS, _LEAST_BEND = 2, 4, 0.1  # rotations tried: FastICA's, then better ones
_NUM_ERRORS = 0.5  # standard errors by which held-out latents must gain
_NUM_NEWTON, _NUM_HALVINGS, _LEAST_GAIN = 12, 5, 1e-3  # the gain is in nats, of all latents of a density
_NEGLIGIBLE = 1e-3  # shares below change no histogram
_MOST_AT_ONCE = 2**22  # entries of the arrays of many densities


def fit_shapes(
    seed: int, prior: ClusteredPrior, gaussian: Params, data: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
) -> Params:  # fmt: skip
    """Fits the energies f of all clusters, and their rotations if maps are full.

    Args:
      seed: seed of FastICA.
      prior: a prior with `shape="learned"`.
      gaussian: parameters of the same prior with `shape="gaussian"`.
      data: latents to fit, float [N, Q], and their responsibilities [N, C].
      held_out: the same for M other latents, which select rotations, energies and penalties.
    """
    params = prior.init(jax.random.key(0)) | gaussian
    coefficients, gain = _fit(prior, params, data, held_out)
    for turn in range(_NUM_TURNS if prior.map == "full" else 0):
        if turn == 0:
            rotation = _rotations(seed, prior, params, *data)
        else:
            rotation = _better_rotations(prior, params, coefficients, *data)
        other, other_gain = _fit(prior, params | {"rotation": rotation}, data, held_out)
        is_better = other_gain.sum(axis=1) > gain.sum(axis=1)
        params["rotation"] = jnp.where(is_better[:, None, None], rotation, params["rotation"])
        coefficients = np.where(is_better[:, None, None], other, coefficients)
        gain = np.where(is_better[:, None], other_gain, gain)
    return params | {"bank": params["bank"] | {"coefficients": jnp.asarray(coefficients, float)}}


def _fit(prior: ClusteredPrior, params: Params, *data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Energies with the best penalty, 0 where held-out latents do not gain; `data` are (latents, shares) of each.

    Returns coefficients [C, Q, G], and the held-out gain of each density in log-likelihood, [C, Q] nats per latent.
    """
    counts, held_out = (_count(prior, params, *part) for part in data)
    features, log_mass = _features(prior), _log_base_mass()
    total = np.maximum(held_out.sum(axis=1), 1e-9)

    coefficients = np.zeros((len(counts), features.shape[1]))
    best, kept, gain = -np.inf, coefficients, np.zeros(len(counts))
    for penalty in _PENALTIES:  # a smoother fit is a good start
        coefficients = _maximum(counts, features, log_mass, penalty, coefficients)
        energy = coefficients @ features.T
        energy -= special.logsumexp(energy + log_mass, axis=1, keepdims=True)  # log p / N(0, 1) in each bin
        mean = np.sum(held_out * energy, axis=1) / total
        error = np.sqrt(np.sum(held_out * (energy - mean[:, None]) ** 2, axis=1)) / total
        is_kept = mean > _NUM_ERRORS * error
        value = float(np.sum(mean * total))  # of all shapes: those that pass the gate would prefer a rough fit
        if value > best:
            best = value
            kept, gain = np.where(is_kept[:, None], coefficients, 0), np.where(is_kept, mean * total, 0)
    shape = (prior.num_clusters, prior.num_latents)
    return kept.reshape(*shape, -1), gain.reshape(shape) / len(data[1][0])


def _maximum(
    counts: np.ndarray, features: np.ndarray, log_mass: np.ndarray, penalty: float, start: np.ndarray
) -> np.ndarray:
    """Coefficients [K, G] that maximise the penalised likelihood of counts [K, bins], by Newton's method."""
    second = np.diff(np.eye(features.shape[1]), 2, axis=0)
    rough = penalty * second.T @ second + _RIDGE * np.eye(features.shape[1])
    num = -(-counts.size // _MOST_AT_ONCE)
    parts = zip(np.array_split(counts, num), np.array_split(start, num), strict=True)
    return np.concatenate([_newton(part, features, log_mass, rough, theta) for part, theta in parts])


def _newton(
    counts: np.ndarray, features: np.ndarray, log_mass: np.ndarray, rough: np.ndarray, theta: np.ndarray
) -> np.ndarray:
    """Maximises the concave mean log-likelihood minus theta' rough theta / (2 count): [K, G]."""
    num_features = features.shape[1]
    products = (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    weight = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    target = (counts / weight) @ features

    def state(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The objective [K], and the probabilities of the bins [K, bins]."""
        log_p = theta @ features.T + log_mass
        log_z = special.logsumexp(log_p, axis=1, keepdims=True)
        penalty = 0.5 * np.einsum("kg,gh,kh->k", theta, rough, theta) / weight[:, 0]
        return np.sum(theta * target, axis=1) - log_z[:, 0] - penalty, np.exp(log_p - log_z)

    value, p = state(theta)
    for _ in range(_NUM_NEWTON):
        mean = p @ features
        slope = target - mean - theta @ rough / weight
        bend = (p @ products).reshape(-1, num_features, num_features) - mean[:, :, None] * mean[:, None, :]
        move = np.linalg.solve(bend + rough / weight[..., None], slope[..., None])[..., 0]
        for _ in range(_NUM_HALVINGS):
            new_value, new_p = state(theta + move)
            is_better = new_value >= value
            if is_better.all():
                break
            move = np.where(is_better[:, None], move, move / 4)
        theta = np.where(is_better[:, None], theta + move, theta)
        gain = np.where(is_better, new_value - value, 0)
        value, p = np.where(is_better, new_value, value), np.where(is_better[:, None], new_p, p)
        if np.max(gain * weight[:, 0]) < _LEAST_GAIN:
            break
    return theta


def _rotations(seed: int, prior: ClusteredPrior, params: Params, z: np.ndarray, share: np.ndarray) -> jax.Array:
    """FastICA rotations of each cluster's own latents, [C, Q, Q]; the identity for clusters with few latents."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    rotations, owner = [np.eye(prior.num_latents)] * prior.num_clusters, share.argmax(axis=1)
    for c, y, _ in _coordinates(prior, params, z, (owner[:, None] == np.arange(prior.num_clusters)).astype(np.float32)):
        if len(y) > 2 * prior.num_latents:
            with warnings.catch_warnings():  # half-found axes may help; held-out latents say whether they do
                warnings.simplefilter("ignore", ConvergenceWarning)
                ica = FastICA(whiten=False, random_state=seed, tol=1e-3, max_iter=_NUM_ROTATIONS).fit(
                    y - y.mean(axis=0)
                )
            # Where coordinates are nearly normal, FastICA's matrix may be far from a rotation. Without this, |y| grows
            # without bound and the shapes seem to gain.
            if np.isfinite(ica.components_).all():
                rotations[c] = linalg.polar(np.asarray(ica.components_, np.float64))[0]
    return jnp.asarray(np.stack(rotations), float)


def _better_rotations(
    prior: ClusteredPrior, params: Params, coefficients: np.ndarray, z: np.ndarray, share: np.ndarray
) -> jax.Array:
    """Rotations [C, Q, Q] moved towards maximum likelihood under the fitted shapes.

    Newton steps with the scores of the shapes and the Hessian of independent coordinates (Ablin et al., 2018, "Faster
    ICA under orthogonal constraint").
    """
    slope = np.gradient(coefficients @ _features(prior).T, (DOMAIN[1] - DOMAIN[0]) / _NUM_BINS, axis=-1)
    rotations, column = np.array(params["rotation"], np.float64), np.arange(prior.num_latents)
    for c, y, weight in _coordinates(prior, params, z, share):
        weight = weight[:, None] / max(weight.sum(), 1e-9)
        turn = np.eye(prior.num_latents)
        for _ in range(_NUM_NEWTON_TURNS):
            x = y @ turn.T
            score = x - slope[c, column, _bin_of(x)]
            moment = (weight * score).T @ x
            second, own = np.sum(weight * score**2, axis=0), np.diag(moment)
            bend = second[:, None] + second - own[:, None] - own
            angle = np.where(bend > _LEAST_BEND, (moment.T - moment) / np.maximum(bend, _LEAST_BEND), 0)
            turn = linalg.expm(np.clip(angle, -0.3, 0.3)) @ turn
        rotations[c] = turn @ rotations[c]
    return jnp.asarray(rotations, float)


def _coordinates(prior: ClusteredPrior, params: Params, z: np.ndarray, share: np.ndarray):
    """Yields each cluster, the coordinates y [n, Q] of latents with a share above 0.001 in it, and those shares [n]."""
    slope = np.asarray(affine.directions(prior.map, params))
    origin = np.asarray(params["location"])
    if prior.map == "shared":
        origin = origin @ np.asarray(affine.inverse_of(prior.map, params)).T
    for c in range(prior.num_clusters):
        rows = share[:, c] > _NEGLIGIBLE
        centred = z[rows] - origin[c]
        yield c, centred * slope[c] if slope.ndim == 2 else centred @ slope[c].T, share[rows, c]


def _count(prior: ClusteredPrior, params: Params, z: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weighted counts of the coordinates in each bin, [C Q, bins]; the first and last bins hold the tails."""
    counts = np.zeros((prior.num_clusters, prior.num_latents * _NUM_BINS))
    offset = np.arange(prior.num_latents) * _NUM_BINS
    for c, y, weight in _coordinates(prior, params, z, share):
        at = _bin_of(y) + offset
        weights = np.broadcast_to(weight[:, None], at.shape).ravel()
        counts[c] = np.bincount(at.ravel(), weights, minlength=counts.shape[1])
    return counts.reshape(-1, _NUM_BINS)


def _bin_of(y: np.ndarray) -> np.ndarray:
    low, high = DOMAIN
    return np.clip((y - low) * (_NUM_BINS / (high - low)), 0, _NUM_BINS - 1).astype(np.int64)


def _features(prior: ClusteredPrior) -> np.ndarray:
    """The basis functions at the middles of the bins, [bins, G]."""
    basis, num_intervals = prior.basis, prior.grid_size
    u = (jnp.arange(_NUM_BINS, dtype=float) + 0.5) * (num_intervals / _NUM_BINS)
    return np.asarray(basis.evaluate(u, num_intervals, basis.init_scale((), num_intervals)), np.float64)


def _log_base_mass() -> np.ndarray:
    """Log of the mass of N(0, 1) in each bin, with the tails in the first and last, [bins]."""
    edges = np.linspace(*DOMAIN, _NUM_BINS + 1)
    edges[[0, -1]] = -np.inf, np.inf
    below, above = special.ndtr(edges), special.ndtr(-edges)
    return np.log(np.where(edges[1:] < 0, np.diff(below), -np.diff(above)))
