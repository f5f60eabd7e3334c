"""scikit-learn's interface to the density of a table: scores, outliers, gaps and draws in the user's own columns."""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state, check_scalar, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from kaem_jax.priors.affine import Map
from kaem_jax.tables import frames
from kaem_jax.tables.choice import fit_density
from kaem_jax.tables.column import warn_of_unknown
from kaem_jax.tables.density import Rows
from kaem_jax.tables.mixture import TableMixture
from kaem_jax.tables.plot import plot_columns

_WIDTHS = np.geomspace(0.05, 1.5, 10)  # of the kernel, in deviations of the columns
_MOST_KERNELS, _MOST_CALIBRATED = 5000, 1000
_STEEPEST = 1.0  # log of the derivative of a map: steeper ones, at ties and at the edges of boxes, make no row normal
_NUM_IMPUTATIONS = 100
_ROWS_AT_ONCE = 2000  # against all kernels


class TableDensity(TransformerMixin, DensityMixin, BaseEstimator):
    """The density of a table: clusters with learned axes and univariate densities, or a tree of clusters.

    Either is fitted in seconds without gradients.

    Rows are an array [N, D], or a frame of pandas or polars whose columns are numbers, texts, categories or truth
    values. NaN and None are gaps, in training and after.

    Args:
      num_clusters: number of clusters, or of those of each column of a tree; None chooses it, and the kind of a
        mixture's maps, on held-out rows.
      map: kind of a mixture's maps if `num_clusters` is given: `full` or `diagonal`.
      method: `mixture` or `tree` (see `kaem_jax.tables.tree`); None chooses it on held-out rows, or is a mixture if
        `num_clusters` is given.
      contamination: share of false alarms among normal rows that `predict` allows, above 0 and at most 0.5.
      exclude: names of columns that are left out.
      bounds: (low, high) of columns by name, with None where there is no bound: no mass lies outside. Bounds are open,
        and no number of the column may equal one.
      seconds: without `num_clusters`, trees end and no larger mixture is tried after this processor time.
      random_state: seed of splits, initial values and draws.

    Attributes:
      density_: `TableMixture` or `TableTree`, of standardised columns, of their powers, or of their normal scores.
      columns_: how each column is converted to these values.
      method_: `mixture` or `tree`.

    Example:
      >>> import numpy as np
      >>> from kaem_jax.tables import TableDensity
      >>> x = np.random.default_rng(0).normal(size=(500, 2))
      >>> model = TableDensity(random_state=0).fit(x)
      >>> model.predict([[0.0, 0.0], [9.0, 9.0]]).tolist()
      [1, -1]
    """

    def __init__(
        self,
        num_clusters: int | None = None,
        map: Map = "full",
        method: Literal["mixture", "tree"] | None = None,
        contamination: float = 0.05,
        exclude: Sequence[str] = (),
        bounds: Mapping[str, frames.Limits] | None = None,
        seconds: float = 40.0,
        random_state: Any = None,
    ):
        self.num_clusters = num_clusters
        self.map = map
        self.method = method
        self.contamination = contamination
        self.exclude = exclude
        self.bounds = bounds
        self.seconds = seconds
        self.random_state = random_state

    feature_names_in_: np.ndarray

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [StrOptions({"mixture", "tree"}), None],
        "num_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "map": [StrOptions(set(get_args(Map)))],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "exclude": ["array-like", set],
        "bounds": [dict, None],
        "seconds": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def fit(self, X: Any, y: Any = None) -> "TableDensity":
        """Fits the density to rows.

        Raises:
          ValueError: an argument is not allowed, there are fewer than two rows, or a column has no value, infinite
            numbers, or texts that name rows.
        """
        self._validate_params()
        table = self._table(X, reset=True)
        is_frame = hasattr(X, "columns")
        self._frame = type(X) if is_frame else None
        self._truths = {str(name) for name in X.columns if frames.is_truth(X[name])} if is_frame else set()
        seed = check_random_state(self.random_state).randint(2**31)
        num = len(next(iter(table.values())))
        if num < 2:
            raise ValueError(f"there is {num} sample, and a density needs 2 or more")
        bounds = dict(self.bounds or {})
        for name, given in (("exclude", self.exclude), ("bounds", bounds)):
            if unknown := sorted(set(given) - set(table)):
                raise ValueError(f"{name}: {unknown} is not a column; there are {', '.join(table)}")
        for name, pair in bounds.items():
            if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(v, Real | None) for v in pair)):
                raise ValueError(f"bounds={{{name!r}: {pair!r}}}: give two numbers, or None for no bound, as (0, None)")
        kept = {name: cells for name, cells in table.items() if name not in self.exclude}
        for name, cells in kept.items():
            if frames.are_counted(cells):
                warnings.warn(f"column {name!r} counts the rows; if it names them, exclude=[{name!r}]", stacklevel=2)
        found = fit_density(seed, kept, bounds, self.method, self.num_clusters, self.map, self.seconds)
        self._seed, self.density_ = seed, found.density
        self.columns_ = tuple(  # the fit saw blurred ties
            dataclasses.replace(column, is_whole=frames.is_whole(kept[column.name])) for column in found.columns
        )
        self._beside = found.mixture
        self.method_ = "mixture" if found.density is found.mixture else "tree"
        rows = frames.encoded(self.columns_, kept)
        filled = self.density_.fill(seed, rows[found.many], 1)
        self._kernels: Rows = Rows(filled[0][0], filled[1][0])[:_MOST_KERNELS]
        numbers = self._raw(self._kernels)
        self._centre, self._spread = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1e-12)
        held_out = rows[found.few]
        self._width = _WIDTHS[int(np.argmax(self._log_kernel(held_out, *_WIDTHS).mean(axis=1)))]
        whole = self.density_.fill(seed, held_out, 1)
        self._held_out = Rows(whole[0][0], whole[1][0])[:_MOST_CALIBRATED]
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Log p of the known cells of each row, [N] nats, with numbers in the user's units.

        Values over different cells are not comparable: compare rows by `decision_function` or `p_values`.
        `standard_errors` has the errors of rows with gaps.
        """
        table, rows = self._read(X)
        value = self.density_.log_prob(self._seed, rows) - frames.log_volume(self.columns_, rows)
        for column in frames.numbers_of(self.columns_):
            value[column.is_outside(table[column.name])] = -np.inf
        if not frames.numbers_of(self.columns_):  # less the density of the number that stands for none
            value -= self.density_.log_prob(self._seed, Rows(rows.z, np.full_like(rows.codes, -1)))
        return value

    def standard_errors(self, X: Any) -> np.ndarray:
        """The Monte Carlo standard error of each value of `score_samples`, [N] nats; 0 where it is exact."""
        return self.density_.estimate(self._seed, self._read(X)[1])[1]

    def cell_scores(self, X: Any) -> np.ndarray:
        """Log p of each cell given the others of its row, [N, D] nats; columns are those of `columns_`.

        The lowest cells make a row unlikely; missing ones have NaN. A number outside its bounds has -inf, and counts as
        missing for the others.
        """
        table, rows = self._read(X)
        numbers = frames.numbers_of(self.columns_)
        outside = {column.name: column.is_outside(table[column.name]) for column in numbers}
        for column, values in zip(numbers, rows.z.T, strict=False):
            values[outside[column.name]] = np.nan  # other cells are scored as if it were missing
        whole, result = self.density_.log_prob(self._seed, rows), []
        of_numbers, categories = itertools.count(), itertools.count()
        for column in self.columns_:
            z, codes = rows.z.copy(), rows.codes.copy()
            if column.categories:
                i, volume = next(categories), np.zeros(len(rows))
                is_known, codes[:, i] = codes[:, i] >= 0, -1
            else:
                i = next(of_numbers)
                volume = column.log_volume(z[:, i : i + 1])
                is_known, z[:, i] = ~np.isnan(z[:, i]), np.nan
            without = self.density_.log_prob(self._seed, Rows(z, codes))
            value = np.where(is_known, whole - without - volume, np.nan)
            result.append(np.where(outside.get(column.name, False), -np.inf, value))
        return np.stack(result, axis=1)

    def plot_columns(self) -> Any:
        """A matplotlib figure of the columns: their densities over histograms of training rows, and their maps.

        Grey lines are the shares of the largest clusters of a mixture. Dashed lines are the learned maps to normal
        scores, the inner functions of the Kolmogorov-Arnold theorem.
        """
        check_is_fitted(self)
        return plot_columns(self._seed, self.columns_, self.density_, self._kernels)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`."""
        return float(np.mean(self.score_samples(X)))

    def decision_function(self, X: Any) -> np.ndarray:
        """How much more normal each row is than the threshold for alarms, [N] nats; outliers are below 0.

        Normality is the mean of log p under the density, where ties make no row normal, and under kernels at the
        training rows: clusters model how columns depend on each other, kernels where no training row was. The threshold
        is a quantile of the normality of held-out training rows with the same cells missing.
        """
        _, rows = self._read(X)
        return self._against_held_out(
            rows, lambda value, other: value - np.quantile(other, self.contamination, method="weibull")
        )

    def p_values(self, X: Any) -> np.ndarray:
        """The share of held-out training rows that are no more normal, with the same cells missing: [N], above 0."""
        _, rows = self._read(X)
        return self._against_held_out(
            rows, lambda value, other: (1 + (other <= value[:, None]).sum(1)) / (1 + other.size)
        )

    def predict(self, X: Any) -> np.ndarray:
        """1 for normal rows and -1 for outliers, [N]."""
        # The row that sets the threshold is no outlier, however its value is rounded.
        return np.where(self.decision_function(X) < -1e-6, -1, 1)

    def impute(self, X: Any, num_draws: int = 0) -> Any:
        """The rows with gaps filled by means and most probable categories, or `num_draws` random versions in a list."""
        check_scalar(num_draws, "num_draws", Integral, min_val=0)
        table, rows = self._read(X)
        z, codes = self.density_.fill(self._seed, rows, num_draws or _NUM_IMPUTATIONS)
        values = [self._in_units(Rows(*draw)) for draw in zip(z, codes, strict=True)]
        if num_draws:
            return [self._like(X, table, self._rounded(value)) for value in values]
        means = {c.name: frames.middle([value[c.name] for value in values], c) for c in self.columns_}
        return self._like(X, table, means)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Exact draws, n_samples rows: a frame if the training rows were one, else an array.

        Columns of whole numbers are rounded to whole numbers.
        """
        check_is_fitted(self)
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        seed = self._seed if random_state is None else check_random_state(random_state).randint(2**31)
        return self._as_trained(self._rounded(self._in_units(self.density_.sample(seed, n_samples))))

    def transform(self, X: Any) -> np.ndarray:
        """The most probable cluster of each row under the mixture, and its place there, [N, 1 + Q + K].

        The first column is the cluster, 0..C-1. The next Q are coordinates in that cluster's own axes, of unit scale
        and almost independent. The last K are codes of categories. Gaps are filled by draws.

        Raises:
          AttributeError: `method` is `tree`.
        """
        _, rows = self._read(X)
        cluster = self._mixture.responsibilities(self._seed, rows).argmax(axis=1)
        z, codes = (values[0] for values in self._mixture.fill(self._seed, rows, 1))
        return np.concatenate([cluster[:, None], self._mixture.coordinates(z, cluster), codes], axis=1).astype(float)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self)
        axes = [f"axis{i}" for i in range(self._mixture.prior.num_latents)]
        return np.array(["cluster", *axes, *(c.name for c in self.columns_ if c.categories)], object)

    def inverse_transform(self, X: Any) -> Any:
        """The rows that `transform` maps to X: a frame if the training rows were one, else an array."""
        check_is_fitted(self)
        prior = self._mixture.prior
        places, names = check_array(X, dtype=float), self.get_feature_names_out()
        if places.shape[1] != len(names):
            raise ValueError(f"X has {places.shape[1]} columns; transform gives {len(names)}: {', '.join(names)}")
        first, y, codes = np.split(places, [1, 1 + prior.num_latents], axis=1)
        cluster = first[:, 0].astype(int)
        for end in (cluster.min(), cluster.max()):
            prior.check_cluster(end)
        return self._as_trained(self._in_units(Rows(self._mixture.numbers_at(y, cluster), codes.astype(int))))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def _mixture(self) -> TableMixture:
        if self._beside is None:
            raise AttributeError("clusters with axes belong to a mixture, and method='tree' fits none: leave it out")
        return self._beside

    def _read(self, X: Any) -> tuple[dict[str, np.ndarray], Rows]:
        check_is_fitted(self)
        table = self._table(X)
        warn_of_unknown(self.columns_, {name: cells.tolist() for name, cells in table.items()})
        return table, frames.encoded(self.columns_, table)

    def _table(self, X: Any, reset: bool = False) -> dict[str, np.ndarray]:
        """The columns of rows by name, as arrays of numbers or of objects."""
        if hasattr(X, "columns"):
            if not all(X.shape):
                raise ValueError(f"X has shape {X.shape}; wanted: a row and a column or more")
            if len(set(X.columns)) < X.shape[1]:
                raise ValueError(f"columns have the same name: {', '.join(map(str, X.columns))}")
            table = {str(name): frames.cells_of(X[name]) for name in X.columns}
            if infinite := [name for name, cells in table.items() if cells.dtype.kind == "f" and np.isinf(cells).any()]:
                raise ValueError(f"the columns {infinite} have infinite numbers; NaN marks a gap")
            if not reset and (missing := set(self.feature_names_in_) - set(table)):
                raise ValueError(f"the columns {sorted(missing)} of training are not there")
            if reset:
                self.feature_names_in_, self.n_features_in_ = np.array(list(table), object), len(table)
            return table if reset else {name: table[name] for name in self.feature_names_in_}
        array = check_array(X, dtype=float, ensure_all_finite="allow-nan", estimator=self)
        validate_data(self, X, reset=reset, skip_check_array=True)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(array.shape[1])])
        return dict(zip(names, array.T, strict=True))

    def _in_units(self, rows: Rows) -> dict[str, np.ndarray]:
        numbers, codes = iter(rows.z.T), iter(rows.codes.T)
        return {
            column.name: np.array(column.categories, object)[next(codes)]
            if column.categories
            else column.in_units(next(numbers))
            for column in self.columns_
        }

    def _rounded(self, table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {c.name: np.round(table[c.name]) if c.is_whole else table[c.name] for c in self.columns_}

    def _as_trained(self, table: Mapping[str, np.ndarray]) -> Any:
        if self._frame is not None:
            return self._frame({name: frames.typed(cells, name in self._truths) for name, cells in table.items()})
        return np.stack(list(table.values()), axis=1)

    def _like(self, X: Any, table: Mapping[str, np.ndarray], filled: Mapping[str, np.ndarray]) -> Any:
        if not hasattr(X, "columns"):
            cells = [
                np.where(frames.is_gap(own), filled[name], own) if name in filled else own
                for name, own in table.items()
            ]
            return np.stack(cells, axis=1)
        whole = {}
        for column in X.columns:
            own = table.get(str(column))
            if own is None or str(column) not in filled or not (gap := frames.is_gap(own)).any():
                whole[column] = X[column]
            else:
                whole[column] = frames.typed(np.where(gap, filled[str(column)], own), frames.is_truth(X[column]))
        return type(X)(whole) if hasattr(X, "to_pandas") else type(X)(whole, index=X.index)

    def _normality(self, rows: Rows) -> np.ndarray:
        log_p = self.density_.log_prob(self._seed, rows) + self._log_slopes(rows)
        return (log_p + self._log_kernel(rows, self._width)[0]) / 2

    def _log_slopes(self, rows: Rows) -> np.ndarray:
        """Log of the derivatives of columns by their standardised values, [N] nats, without those of spikes."""
        columns = zip(frames.numbers_of(self.columns_), rows.z.T, self._spread, strict=False)
        slopes = [np.log(spread) - column.log_volume(values[:, None]) for column, values, spread in columns]
        return np.sum(np.minimum(slopes, _STEEPEST), axis=0) if slopes else np.zeros(len(rows))

    def _log_kernel(self, rows: Rows, *widths: float) -> np.ndarray:
        """Log of the mean of normal kernels at the training rows, over the known cells of each row, [W, N] nats."""
        if len(rows) > _ROWS_AT_ONCE:
            parts = gen_batches(len(rows), _ROWS_AT_ONCE)
            return np.concatenate([self._log_kernel(rows[part], *widths) for part in parts], axis=1)
        known, z, kernels = ~np.isnan(rows.z), self._standard(rows), self._standard(self._kernels)
        square = (z**2).sum(1)[:, None] - 2 * z @ kernels.T + known @ (kernels**2).T
        for own, others in zip(rows.codes.T, self._kernels.codes.T, strict=True):
            square += 2.0 * ((own[:, None] != others) & (own >= 0)[:, None])  # as of two corners
        num_known = known.sum(1) + (rows.codes >= 0).sum(1)
        nearest = square.min(axis=1)  # the distances are of all widths, so SciPy's logsumexp would repeat this
        square -= nearest[:, None]
        width = np.array(widths)[:, None]
        mean = np.array([np.exp(square * (-0.5 / one**2)).mean(axis=1) for one in widths])
        return np.log(mean) - 0.5 * nearest / width**2 - num_known * np.log(width * np.sqrt(2 * np.pi))

    def _standard(self, rows: Rows) -> np.ndarray:
        """Standardised numbers, without powers; 0 where missing."""
        return np.nan_to_num((self._raw(rows) - self._centre) / self._spread)

    def _raw(self, rows: Rows) -> np.ndarray:
        values = [c.in_units(v) for c, v in zip(frames.numbers_of(self.columns_), rows.z.T, strict=False)]
        return np.stack(values, axis=1) if values else rows.z.astype(float)

    def _against_held_out(self, rows: Rows, compare: Any) -> np.ndarray:
        """Applies `compare` to the normality of rows and of held-out rows, for each pattern of missing cells."""
        value, result = self._normality(rows), np.zeros(len(rows))
        gaps = np.concatenate([np.isnan(rows.z), rows.codes < 0], axis=1)
        patterns, pattern = np.unique(gaps, axis=0, return_inverse=True)
        num = max(50, _MOST_CALIBRATED // len(patterns))
        for i, gap in enumerate(patterns):
            held_out = self._held_out[:num] if gap.any() else self._held_out
            of_numbers, of_codes = np.split(gap, [rows.z.shape[1]])
            z = np.where(of_numbers, np.nan, held_out.z).astype(np.float32)
            other = self._normality(Rows(z, np.where(of_codes, -1, held_out.codes)))
            own = pattern.ravel() == i
            result[own] = compare(value[own], other)
        return result
