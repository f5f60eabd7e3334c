"""Rows of a table, and what each kind of density of them computes."""

import abc
import dataclasses

import jax
import numpy as np

from kaem_jax.inference.samplers.importance_sampler import resample


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a table: numbers float32 [N, Q] and codes of categories int [N, K], NaN and -1 where missing."""

    z: np.ndarray
    codes: np.ndarray

    def __getitem__(self, index: np.ndarray | slice) -> "Rows":
        return Rows(self.z[index], self.codes[index])

    def __len__(self) -> int:
        return len(self.z)

    @property
    def has_gaps(self) -> np.ndarray:
        """Which rows lack a number, bool [N]."""
        return np.isnan(self.z).any(axis=1)

    @property
    def lack_cells(self) -> np.ndarray:
        """Which rows lack a number or a category, bool [N]."""
        return self.has_gaps | (self.codes < 0).any(axis=1)

    def hot_deck(self, rng: np.random.Generator) -> "Rows":
        """Rows whose gaps are filled by cells of the same columns."""
        return Rows(hot_deck(rng, self.z), hot_deck(rng, np.where(self.codes < 0, np.nan, self.codes)).astype(int))


class Density(abc.ABC):
    """A fitted density of rows. Cells that are missing are integrated out."""

    @property
    @abc.abstractmethod
    def num_clusters(self) -> int:
        """The number of clusters, or of those of each column."""

    def log_prob(self, seed: int, rows: Rows) -> np.ndarray:
        """Log p of the known cells of each row, [N] nats; `seed` decides the draws of gaps."""
        return self.estimate(seed, rows)[0]

    @abc.abstractmethod
    def estimate(self, seed: int, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Log p of the known cells of each row and its Monte Carlo standard error, 0 where it is exact: [N] nats."""

    @abc.abstractmethod
    def responsibilities(self, seed: int, rows: Rows) -> np.ndarray:
        """P(c | known cells) of the clusters, [N, C]; one cluster where there are none."""

    @abc.abstractmethod
    def fill(self, seed: int, rows: Rows, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of whole rows given their known cells: numbers [S, N, Q] and codes [S, N, K]."""

    @abc.abstractmethod
    def sample(self, seed: int, num: int) -> Rows:
        """Independent rows."""


def mean_weight(log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the mean of weights [S, N] over S, and its standard error, [N] nats.

    As `evidence_of_weights`, by NumPy: a program for each number of rows would take longer to compile.
    """
    top = log_weight.max(axis=0)
    weight = np.exp(log_weight - top)
    mean = weight.mean(axis=0)
    return top + np.log(mean), weight.std(axis=0, ddof=1) / mean / len(weight) ** 0.5


def resampled(seed: int, log_weight: np.ndarray, num_draws: int) -> np.ndarray:
    """Positions [R, N] of draws in proportion to weights, whose logs are [S, N]."""
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(_resample(jax.random.key(seed), weight.T, num_draws)).T


_resample = jax.jit(resample, static_argnums=2)


def draw_categories(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """A draw from each softmax of [..., K]: by NumPy, since a program for each shape would take longer to compile."""
    return np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)


def hot_deck(rng: np.random.Generator, cells: np.ndarray) -> np.ndarray:
    """Cells [N, D] whose gaps are filled by values of the same column, or by 0 if it has none."""
    filled = cells.copy()
    for own in filled.T:
        known = own[~np.isnan(own)]
        own[np.isnan(own)] = rng.choice(known if known.size else np.zeros(1), len(own) - len(known))
    return filled
