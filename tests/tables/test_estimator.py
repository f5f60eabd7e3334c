"""scikit-learn's interface: its own checks, scores in the user's units, outliers, gaps and frames."""

import copy
import itertools
import pickle

import numpy as np
import pandas
import polars
import pytest
from scipy import integrate, stats
from sklearn.utils.estimator_checks import check_estimator

from kaem_jax.priors import em
from kaem_jax.tables import TableDensity, choice, fit_tree, frames, plot

SHEAR = np.array([[1.0, 0.8, 0.2], [0.0, 0.6, -0.5], [0.0, 0.0, 0.9]])


def normal_rows(rng, num):
    return rng.normal(size=(num, 3)) @ SHEAR * [1, 10, 100] + [5, 0, -3]


def with_gaps(rng, x, share=0.2):
    return np.where(rng.random(x.shape) < share, np.nan, x)


def frame_of(rng, num=600):
    group = rng.choice(["a", "b"], num)
    return {
        "size": rng.normal(np.where(group == "a", -2.0, 2.0)),
        "group": group,
        "count": rng.integers(0, 5, num),
        "is_new": rng.random(num) < 0.3,
        "same": np.full(num, 7.0),
        "id": np.arange(num),
    }


@pytest.fixture(scope="module", autouse=True)
def _few_fills_and_programs():
    """Trees of rows with gaps only choose the columns' transform here, for which two draws of the gaps are enough; and
    all smaller numbers of rows share the programs of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_tree, "_NUM_FILLS", 2)
        patch.setattr(em, "_FEWEST_AT_ONCE", 2048)
        yield


@pytest.fixture(scope="module")
def fitted():
    """A model of normal rows in three units, fitted with gaps."""
    rng = np.random.default_rng(0)
    return TableDensity(num_clusters=1, random_state=0).fit(with_gaps(rng, normal_rows(rng, 4000)))


def two_clusters():
    return TableDensity(num_clusters=2, map="diagonal", exclude=["id"], random_state=0)


@pytest.fixture(scope="module")
def of_groups():
    """A model of two clusters, the two groups of a frame."""
    return two_clusters().fit(pandas.DataFrame(frame_of(np.random.default_rng(1))))


def truth():
    scale = np.diag([1.0, 10.0, 100.0])
    return np.array([5.0, 0, -3]), scale @ SHEAR.T @ SHEAR @ scale


def given_the_rest(x, i):
    """The exact mean of column i of rows given the other two, and its deviation."""
    (mean, covariance), rest = truth(), np.delete(np.arange(3), i)
    slope = covariance[i, rest] @ np.linalg.inv(covariance[np.ix_(rest, rest)])
    return mean[i] + (x[:, rest] - mean[rest]) @ slope, np.sqrt(covariance[i, i] - slope @ covariance[rest, i])


@pytest.mark.slow
def test_the_checks_of_scikit_learn_pass():
    check_estimator(TableDensity(num_clusters=1, random_state=0), on_skip=None)


def test_scores_are_log_densities_in_the_users_units(fitted, rng):
    """Of whole rows, and of what is known of others."""
    mean, covariance = truth()
    x = normal_rows(rng, 500)
    loss = stats.multivariate_normal(mean, covariance).logpdf(x) - fitted.score_samples(x)
    assert abs(loss.mean()) < 0.02
    gaps = np.where([False, True, False], np.nan, x)
    known = np.ix_([0, 2], [0, 2])
    loss = stats.multivariate_normal(mean[[0, 2]], covariance[known]).logpdf(x[:, [0, 2]]) - fitted.score_samples(gaps)
    assert abs(loss.mean()) < 0.02
    assert fitted.score(x) == pytest.approx(fitted.score_samples(x).mean())


def test_false_alarms_are_as_many_as_were_asked_for_whatever_is_missing(fitted, rng):
    """Of 800 held-out rows the quantile is known to the root of .05 x .95 / 800, that of gaps by fewer."""
    x = normal_rows(rng, 1200)
    lacking = np.where([True, False, False], np.nan, x)
    for rows, num, share in ((x, 800, 0.05), (lacking, 800, 0.2), (with_gaps(rng, x), 140, None)):
        error, p = np.sqrt(0.05 * 0.95 * (1 / num + 1 / 1200)), fitted.p_values(rows)
        if share:
            alarms = copy.copy(fitted).set_params(contamination=share).predict(rows) == -1
            assert abs(np.mean(alarms) - share) < 4.5 * np.sqrt(share * (1 - share) * (1 / num + 1 / 1200))
        assert abs(np.mean(p < 0.05) - 0.05) < 4.5 * error
        assert abs(np.mean(p < 0.5) - 0.5) < 4.5 * np.sqrt(0.25 * (1 / num + 1 / 1200))
    # Rows with fewer cells have larger densities, not fewer alarms; and outliers are found.
    assert fitted.score(lacking) > fitted.score(x) + 0.5
    far = normal_rows(rng, 200) + np.array([4, -40, 0])
    assert np.mean(fitted.predict(far) == -1) > 0.9
    assert np.mean(fitted.predict(np.where([False, False, True], np.nan, far)) == -1) > 0.9


def test_gaps_are_filled_by_conditional_means_and_draws(fitted, rng):
    """Against the closed form; known cells stay as they are, and 90 % intervals of draws cover 90 %."""
    x = normal_rows(rng, 1000)
    rows, (exact, spread) = np.where([False, True, False], np.nan, x), given_the_rest(x, 1)
    filled = fitted.impute(rows)
    np.testing.assert_array_equal(filled[:, [0, 2]], x[:, [0, 2]])
    # A hundred draws know a mean to a tenth of their spread.
    assert np.std(filled[:, 1] - exact) < 0.13 * spread
    draws = np.stack(fitted.impute(rows, num_draws=39))[:, :, 1]
    low, high = np.sort(draws, axis=0)[[1, 37]]
    assert abs(np.mean((low <= x[:, 1]) & (x[:, 1] <= high)) - 0.9) < 4.5 * np.sqrt(0.09 / 1000)


def test_draws_have_the_moments_of_the_rows(fitted):
    draws, (mean, covariance) = fitted.sample(20_000, random_state=1), truth()
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(axis=0) - mean) / scale, 0, atol=0.08)
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.1)


def test_rows_have_a_place_in_their_cluster(fitted, of_groups, rng):
    """Coordinates of normal rows are standard normal and independent, and lead back to the rows; so in frames."""
    x = normal_rows(rng, 2000)
    places = fitted.transform(x)
    assert places.shape == (2000, 4)
    np.testing.assert_array_equal(places[:, 0], 0)
    np.testing.assert_allclose(places[:, 1:].mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(places[:, 1:].T), np.eye(3), atol=0.1)
    np.testing.assert_allclose(fitted.inverse_transform(places), x, rtol=1e-4, atol=1e-2)
    table, model = pandas.DataFrame(frame_of(rng, 300)), of_groups
    places = model.transform(table)
    share = np.mean((places[:, 0] == places[0, 0]) == (table["group"] == table["group"][0]))
    assert share > 0.9  # the clusters are the two groups
    plots = {axes.get_title(): axes for axes in model.plot_columns().axes}
    for name in ("size", "count", "same"):  # the parts of both clusters add up to the density
        whole, *parts = (line.get_ydata() for line in plots[name].lines)
        np.testing.assert_allclose(sum(parts), whole, rtol=1e-4)
        assert len(parts) == 2
    back = model.inverse_transform(places)
    np.testing.assert_array_equal(back[["group", "is_new"]], table[["group", "is_new"]])
    np.testing.assert_allclose(back[["size", "count"]], table[["size", "count"]], atol=1e-3)
    gaps = model.transform(table.assign(size=np.nan))
    np.testing.assert_array_equal(gaps[:, 0], places[:, 0])  # the group says which
    named = copy.copy(model).set_output(transform="pandas").transform(table)
    assert list(named) == ["cluster", "axis0", "axis1", "axis2", "group", "is_new"]
    with pytest.raises(ValueError, match="X has 5 columns; transform gives 6"):
        model.inverse_transform(places[:, :5])
    with pytest.raises(ValueError, match="cluster=2 must be an integer from 0 to 1"):
        model.inverse_transform(np.where([True] + [False] * 5, 2, places))


def test_cells_say_why_a_row_is_unlikely(fitted, of_groups, rng):
    """Against the conditional normal distributions; and of a category given a number."""
    x = normal_rows(rng, 400)
    found = fitted.cell_scores(x)
    for i in range(3):
        assert abs(np.mean(found[:, i] - stats.norm(*given_the_rest(x, i)).logpdf(x[:, i]))) < 0.03
    gaps = fitted.cell_scores(np.where([True, False, False], np.nan, x[:5]))
    np.testing.assert_array_equal(np.isnan(gaps), np.tile([True, False, False], (5, 1)))
    table = frame_of(rng, 1000)
    of_group = of_groups.cell_scores(pandas.DataFrame(table))[:, 1]
    odds = np.where(table["group"] == "a", -4.0, 4.0) * table["size"]
    assert abs(np.mean(of_group + np.logaddexp(0, -odds))) < 0.05


def test_a_number_out_of_bounds_spoils_no_other_cell(rng):
    x = normal_rows(rng, 500)
    x[:, 0] = np.exp(x[:, 0])
    model = TableDensity(num_clusters=1, bounds={"x0": (0, None)}, random_state=0).fit(x)
    found = model.cell_scores(np.where([True, False, False], -1e-3, x[:5]))
    np.testing.assert_array_equal(found[:, 0], -np.inf)
    np.testing.assert_allclose(found[:, 1:], model.cell_scores(np.where([True, False, False], np.nan, x[:5]))[:, 1:])


def test_columns_are_plotted_with_their_rows(fitted):
    """The line is the column's own density: normal, with the mean and deviation of the truth."""
    figure, (mean, covariance) = fitted.plot_columns(), truth()
    assert [axes.get_title() for axes in figure.axes[::2]] == ["x0", "x1", "x2"]
    for i, axes in enumerate(figure.axes[::2]):
        x, density = axes.lines[0].get_data()
        exact = stats.norm(mean[i], np.sqrt(covariance[i, i])).pdf(x)
        assert np.max(np.abs(density - exact)) < 0.06 * exact.max()
        heights = [patch.get_height() for patch in axes.patches]
        assert sum(heights) * (x[-1] - x[0]) / len(heights) == pytest.approx(1, abs=0.01)


def test_columns_have_their_density_and_no_mass_outside_bounds(rng):
    """The mass is 1. Nats of fresh rows are those of the truth within 0.01, 0.05 without bounds, and their noise."""
    beta, gamma, lognormal, ends = stats.beta(2, 5), stats.gamma(2.0), stats.lognorm(1.0), np.geomspace(1e-4, 1e3, 9000)
    columns = {
        "x0": ((0, 1), beta.rvs, beta.logpdf, np.linspace(0, 1, 9000)[1:-1]),
        "x1": ((0, None), lognormal.rvs, lognormal.logpdf, ends),
        "x2": ((0, None), gamma.rvs, gamma.logpdf, ends),
        "x3": ((None, 3), lambda *given: 3 - gamma.rvs(*given), lambda x: gamma.logpdf(3 - x), 3 - ends[::-1]),
        "x4": ((None, None), lognormal.rvs, lognormal.logpdf, np.append(np.linspace(-9, 9e-5, 4000), ends)),
    }

    def draw(num):
        return np.stack([rvs(num, rng) for _, rvs, *_ in columns.values()], axis=1)

    def alone(cells, i):
        """Rows of column i, in which the others are missing."""
        return np.where(np.arange(5) == i, np.reshape(cells, (-1, 1)), np.nan)

    bounds = {name: limits for name, (limits, *_) in columns.items()}
    model = TableDensity(num_clusters=1, map="diagonal", bounds=bounds, random_state=0).fit(draw(5000))
    x = draw(10_000)
    for i, ((low, high), _, log_pdf, grid) in enumerate(columns.values()):
        loss = log_pdf(x[:, i]) - model.score_samples(alone(x[:, i], i))
        assert abs(loss.mean()) < (0.05 if i == 4 else 0.01) + 4.5 * loss.std() / 10_000**0.5
        assert integrate.trapezoid(np.exp(model.score_samples(alone(grid, i))), grid) == pytest.approx(1, abs=5e-3)
        if i < 4:
            outside = alone([end + step for end, step in ((low, -0.1), (high, 0.1)) if end is not None], i)
            np.testing.assert_array_equal(model.score_samples(outside), -np.inf)
            np.testing.assert_array_equal(model.predict(outside), -1)


def test_a_column_of_two_modes_needs_clusters(rng):
    """Nats of fresh rows as above."""

    def draw(num):
        return np.where(rng.random(num) < 0.3, rng.normal(-2, 0.5, num), rng.normal(1, 1, num))[:, None]

    model, x = TableDensity(num_clusters=4, random_state=0).fit(draw(4000)), draw(20_000)
    law = np.log(0.3 * stats.norm(-2, 0.5).pdf(x) + 0.7 * stats.norm(1, 1).pdf(x))
    loss = law[:, 0] - model.score_samples(x)
    assert abs(loss.mean()) < 0.01 + 4.5 * loss.std() / 20_000**0.5


@pytest.mark.parametrize("kind", [pandas.DataFrame, polars.DataFrame])
def test_frames_with_categories_counts_and_constants(of_groups, rng, kind, capsys):
    """Categories by dtype; a gap is filled in the frame's own type, and the category follows the number."""
    model = of_groups if kind is pandas.DataFrame else two_clusters().fit(kind(frame_of(rng)))
    assert [bool(column.categories) for column in model.columns_] == [False, True, False, True, False]
    table = frame_of(rng, 200)
    scores = model.score_samples(kind(table))
    assert np.isfinite(scores).all()
    wrong = {**table, "group": np.where(table["group"] == "a", "b", "a")}
    assert np.mean(scores > model.score_samples(kind(wrong))) > 0.9
    group = table["group"].copy().astype(object)
    group[:50] = None
    filled = model.impute(kind({**table, "group": group}))
    assert isinstance(filled, kind)
    assert list(filled.columns) == list(table)
    expected = np.where(table["size"] < 0, "a", "b")[:50]
    assert np.mean(np.asarray(filled["group"])[:50] == expected) > 0.9
    np.testing.assert_array_equal(np.asarray(filled["group"])[50:], table["group"][50:])
    other = model.score_samples(kind({**table, "same": table["same"] + 1}))
    assert np.mean(other < scores - 10) == 1
    unseen = model.score_samples(kind({**table, "group": np.full(200, "c")}))
    assert "200 cells (e.g. 'c')" in capsys.readouterr().err  # and count as missing
    np.testing.assert_array_equal(unseen, model.score_samples(kind({**table, "group": [None] * 200})))
    draws = model.sample(50)
    assert isinstance(draws, kind)
    assert list(draws.columns) == list(table)[:-1]
    assert set(draws["group"]) == {"a", "b"}
    for rows in (draws, filled):
        assert {type(value) for value in rows["is_new"].to_list()} == {bool}
    assert str(filled["count"].dtype).lower() == "int64"  # nothing was missing there


def test_kinds_of_columns_with_gaps(rng):
    """One number, whole numbers, categories and truth values stay so; another number is very unlikely."""
    frame = pandas.DataFrame(
        {
            "year": np.full(500, 1912.0),
            "k": rng.integers(1, 4, 500),
            "n": pandas.Series(rng.integers(0, 9, 500)).astype("Int64"),
            "c": pandas.Series(rng.choice([1, 2], 500)).astype("category"),
            "t": pandas.Series(rng.random(500) < 0.5).astype("boolean"),
        }
    )
    gaps = frame.assign(**{name: frame[name].mask(rng.random(500) < 0.1) for name in frame})
    model = TableDensity(num_clusters=1, random_state=0).fit(gaps)
    assert [column.categories for column in model.columns_] == [(), (), (), ("1", "2"), ("False", "True")]
    drawn = model.sample(400)
    assert set(drawn["k"]) >= {1, 2, 3}
    for whole in (drawn, model.impute(gaps), *model.impute(gaps, num_draws=2)):
        assert not whole.isna().any().any()
        np.testing.assert_allclose(whole["year"], 1912, rtol=1e-6)
        assert whole["t"].dtype == bool
    for rows in (drawn, whole):  # and of the last draw
        np.testing.assert_array_equal(rows[["k", "n"]], np.round(rows[["k", "n"]].astype(float)))
    for name in frame:
        known = gaps[name].notna()
        cells = [rows[name][known].astype(str).str.removesuffix(".0").tolist() for rows in (whole, frame)]
        assert cells[0] == cells[1]
    usual, other = model.score_samples(frame[:1])[0], model.score_samples(frame[:1].assign(year=1913.0))[0]
    assert other < usual - 1000
    assert model.predict(gaps).mean() > 0.8  # a gap is no alarm, and hides none
    np.testing.assert_array_equal(model.predict(frame[:100].assign(year=np.nan, n=90)), -1)


def test_a_table_of_categories_alone(rng):
    """Its probabilities add up to one."""
    table = pandas.DataFrame(rng.choice(["x", "y"], (500, 2), p=[0.3, 0.7]), columns=["p", "q"])
    model = TableDensity(num_clusters=2, random_state=0).fit(table)
    every = pandas.DataFrame([(p, q) for p in "xy" for q in "xy"], columns=["p", "q"])
    probability = np.exp(model.score_samples(every))
    assert probability.sum() == pytest.approx(1, abs=1e-4)
    assert probability[3] == pytest.approx(0.49, abs=0.06)
    assert model.p_values(every)[3] == pytest.approx(1, rel=1e-9)  # held-out rows that equal it count


def test_the_same_state_gives_the_same_model_and_pickles(rng):
    x = rng.normal(size=(500, 1))
    first, again, other = (TableDensity(num_clusters=2, random_state=seed).fit(x) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.decision_function(x), again.decision_function(x))
    assert not np.allclose(first.decision_function(x), other.decision_function(x))
    pickled = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(pickled.score_samples(x), first.score_samples(x))


def test_splits_choose_transforms_and_held_out_rows_a_mixture_or_a_tree(rng, monkeypatch):
    for num, num_folds in ((500, 1), (499, 5), (5, 5), (4, 1)):
        few = [few for many, few in choice._folds(3, num) if sorted([*many, *few]) == list(range(num))]
        assert [len(part) for part in few] == [max(1, num // 5)] * num_folds
        assert len(np.unique(few)) == num_folds * len(few[0])
    fitted, table = fit_tree.fit_tree, {"x": rng.lognormal(size=100)}

    def chosen(method, *gains):
        left = itertools.chain.from_iterable(gains)
        monkeypatch.setattr(choice, "fit_tree", lambda *a, **b: fitted(*a[:4], (1,))._replace(value=next(left)))
        found = choice.fit_density(0, table, {}, method, None, "diagonal", 0.0)
        assert next(left, None) is None
        return found

    best = chosen("mixture", [1e6, 0, 0, 0, 0], [0] * 5, [0, 0, 0, 0, 2e6])  # scores, powers, and plain
    assert [(column.power, column.knots) for column in best.columns] == [(1, ())]
    for value, is_mixture in ((1e6, False), (-1e6, True)):  # of the tree
        found = chosen(None, [value] * 15)
        assert (found.density is found.mixture) == is_mixture


@pytest.mark.parametrize("name", ["contamination", "map", "seconds", "num_clusters", "random_state"])
def test_arguments_are_checked_before_anything_is_fitted(name, refuses):
    wrong = {"contamination": (2, 0.0, "auto"), "map": ("foo",), "seconds": (-5,), "num_clusters": (0, 1.5)}
    for value in wrong.get(name, ("seed",)):
        with refuses(ValueError, f"'{name}' parameter of TableDensity", repr(value)):
            TableDensity(**{name: value}).fit(np.zeros((0, 2)))


def test_what_cannot_be_fitted_is_refused(rng, refuses):
    x = normal_rows(rng, 50)
    frame = pandas.DataFrame(x, columns=["a", "b", "c"])
    names, least = [f"row {i}" for i in range(50)], frame["a"].min()
    for rows, options, parts in (
        (np.where([True, False, False], np.nan, x), {}, ["column 'x0' has no value", "exclude=['x0']"]),
        (frame, {"exclude": ["d"]}, ["exclude: ['d']", "a, b, c"]),
        (frame - 9, {"bounds": {"a": (0, None)}}, ["column 'a'", "not inside its bounds (0, None)"]),
        (frame, {"bounds": {"a": 0}}, ["bounds={'a': 0}", "two numbers"]),
        (frame, {"bounds": {"a": ("0", None)}}, ["bounds={'a': ('0', None)}", "two numbers"]),
        (x[:1], {}, ["1 sample", "2 or more"]),
        (frame.assign(id=names), {}, ["column 'id'", "50 different texts in 50 rows", "exclude=['id']"]),
        (pandas.concat([frame, frame], axis=1), {}, ["same name", "a, b, c, a, b, c"]),
        (frame.assign(a=1e300 * np.arange(50.0)), {}, ["column 'a'", "4.9e+301", "rescale"]),
        (frame, {"bounds": {"a": (least, None)}}, ["column 'a'", "no number may reach"]),
        (np.where(x > 5, np.inf, x), {}, ["infinity"]),
    ):
        with refuses(ValueError, *parts):
            TableDensity(**options).fit(rows)


def test_rows_that_do_not_fit_the_model_are_refused(of_groups, rng, refuses):
    model, frame = of_groups, pandas.DataFrame(frame_of(rng, 9))
    refuses.each(
        (lambda: model.sample(-1), ["n_samples == -1"]),
        (lambda: model.impute(frame, num_draws=-1), ["num_draws == -1"]),
        (lambda: model.score_samples(frame.drop(columns="size")), ["columns ['size'] of training are not there"]),
        (lambda: model.predict(frame.assign(size=np.inf)), ["['size']", "infinite"]),
        (lambda: model.predict(frame[:0]), ["shape (0, 6)", "a row"]),
    )


def test_numbers_that_count_the_rows_are_told(rng, refuses):
    """Not those that occur twice, or with gaps between them."""
    rows = rng.permutation(60)
    for is_id, numbers in ((True, rows), (True, rows + 1000), (False, rows // 2), (False, 7 * rows), (False, rows / 2)):
        assert frames.are_counted(np.append(numbers, np.nan)) == is_id
    with refuses(UserWarning, "column 'x1' counts the rows", "exclude=['x1']"):  # here a warning is an error
        TableDensity(num_clusters=1).fit(np.stack([rng.normal(size=60), rows], axis=1))


def two_rings(rng, num):
    """A ring and a line in three columns, a category that says which, and a column of many ties."""
    angle, kind = rng.uniform(0, 2 * np.pi, num), rng.integers(2, size=num)
    x, y = np.cos(angle) + 0.05 * rng.normal(size=num), np.sin(angle) + 0.05 * rng.normal(size=num)
    tied = np.where(rng.random(num) < 0.5, 0.0, rng.exponential(size=num))
    values = {"x": np.where(kind, x, 3 + x), "y": np.where(kind, y, x + 0.05 * rng.normal(size=num)), "tied": tied}
    return pandas.DataFrame(values | {"kind": np.where(kind, "ring", "line")})


@pytest.fixture(scope="module")
def trees():
    return TableDensity(method="tree", num_clusters=25, random_state=0).fit(two_rings(np.random.default_rng(0), 1500))


def test_a_tree_scores_draws_and_fills_frames(trees, rng):
    """Its draws look like rows, gaps are filled by what the rest says, and rows on neither shape are outliers."""
    assert trees.method_ == "tree"
    table = two_rings(rng, 1000)
    drawn = trees.sample(1000, random_state=3)
    assert list(drawn.columns) == list(table.columns)
    for name in ("x", "y"):
        assert stats.ks_2samp(drawn[name], table[name]).pvalue > 1e-4
    radius = np.hypot(drawn["x"], drawn["y"])[drawn["kind"] == "ring"]
    assert abs(np.mean(radius) - 1) < 0.05
    assert np.median(np.abs(radius - 1)) < 0.15
    lacking = table.assign(kind=None, y=np.where(np.arange(1000) % 2, np.nan, table["y"]))
    filled = trees.impute(lacking)
    assert np.mean(filled["kind"] == table["kind"]) > 0.9
    is_line = (table["kind"] == "line") & lacking["y"].isna()
    assert np.mean(np.abs(filled["y"] - table["y"])[is_line]) < 0.15
    errors = trees.standard_errors(pandas.concat([table[:100], lacking[:100]]))
    np.testing.assert_array_equal(errors[:100], 0)
    assert 0 < errors[100:].max() < 1
    assert not drawn.equals(trees.sample(1000, random_state=4))
    middle = table.assign(x=0.0, y=0.0, kind="ring")
    assert np.mean(trees.predict(middle) == -1) > 0.9
    p_values = trees.p_values(table.assign(kind=None))
    assert abs(np.mean(p_values < 0.5) - 0.5) < 4.5 * np.sqrt(0.25 * (1 / 300 + 1 / 1000))
    assert abs(np.mean(trees.predict(table) == -1) - 0.05) < 4.5 * np.sqrt(0.05 * 0.95 * (1 / 300 + 1 / 1000))


def test_trees_stop_growing_where_held_out_rows_lose(rng):
    """Ten far clusters need ten: the larger trees that are tried then are dropped."""
    place = 20 * rng.integers(0, 10, 1000)
    x = np.stack([place, place % 60], axis=1) + rng.normal(size=(1000, 2))
    assert TableDensity(method="tree", random_state=0).fit(x).density_.num_clusters == 10


def test_ties_hide_no_outlier(trees, rng):
    """A row between the shapes is an outlier although its third number is that of every second row."""
    table = two_rings(rng, 300).assign(tied=0.0)
    assert np.mean(trees.predict(table.assign(x=0.0, y=0.0, kind="ring")) == -1) > 0.9
    density = np.exp(trees.score_samples(table) - trees.score_samples(table.assign(tied=np.nan)))
    # The density at a tie is that of its cell: half of the rows in a tenth of a deviation, or wider.
    spread = two_rings(np.random.default_rng(0), 1500)["tied"].std()
    assert 0.5 < np.median(density) * spread * 0.1 / 0.5 < 1.5


@pytest.mark.slow
def test_the_method_is_what_was_asked_for_or_what_held_out_rows_prefer(rng, refuses):
    """A ring is a tree's, and two normal clusters are neither's to lose; `transform` belongs to mixtures."""
    x = two_rings(rng, 800)[["x", "y"]]
    trees = TableDensity(method="tree", num_clusters=3, random_state=0).fit(x)
    assert (trees.method_, trees.density_.num_clusters) == ("tree", 3)
    with refuses(AttributeError, "belong to a mixture", "method='tree'"):
        trees.transform(x)
    mixture = TableDensity(num_clusters=3, random_state=0).fit(x)
    assert (mixture.method_, mixture.density_.num_clusters) == ("mixture", 3)
    assert mixture.transform(x).shape == (800, 3)
    chosen = TableDensity(random_state=0).fit(x)
    both = [TableDensity(method=method, random_state=0).fit(x) for method in ("mixture", "tree")]
    assert [model.method_ for model in both] == ["mixture", "tree"]
    fresh = two_rings(rng, 2000)[["x", "y"]]
    assert chosen.score(fresh) > max(model.score(fresh) for model in both) - 0.05
    assert chosen.transform(x).shape == (800, 3)


def test_a_bar_is_around_each_of_few_values():
    """So that its height is the density of the cell, to which the model's is compared."""
    np.testing.assert_allclose(plot._bins(np.array([7.0, 8, 8, 10])), [6.25, 7.5, 9, 10.75])
    np.testing.assert_allclose(plot._bins(np.ones(3)), [0.5, 1.5])
    assert len(plot._bins(np.arange(99.0))) == 41


def test_maps_and_categories_are_plotted(trees):
    axes = {one.get_title(): one for one in trees.plot_columns().axes}
    named = {text.get_text() for text in axes["x"].get_legend().get_texts()}
    assert {"training rows", "model", "learned map (right)"} <= named
    table = two_rings(np.random.default_rng(0), 1500)
    heights = [patch.get_height() for patch in axes["kind"].patches]
    assert heights == pytest.approx([np.mean(table["kind"] == kind) for kind in ("line", "ring")], abs=0.03)
    assert axes["kind"].lines[0].get_ydata().sum() == pytest.approx(1, abs=1e-3)
    assert axes["kind"].lines[0].get_ydata() == pytest.approx(heights, abs=0.05)
    maps = [one.lines[0] for one in trees.plot_columns().axes if not one.get_title()]
    assert len(maps) == 3
    for line, column in zip(maps, trees.columns_, strict=False):
        np.testing.assert_allclose(line.get_ydata(), column.encode(line.get_xdata().tolist())[:, 0])
        assert np.all(np.diff(line.get_ydata()) > 0)


def test_columns_are_mapped_where_held_out_rows_gain(rng):
    """In the units of the rows, which crowd at the edges of a box: with 1,500 rows 0.2 of a nat is lost."""
    law = stats.beta(0.4, 0.4)
    model = TableDensity(num_clusters=1, random_state=0).fit(law.rvs((1500, 2), random_state=rng))
    assert all(column.knots for column in model.columns_)
    fresh = law.rvs((2000, 2), random_state=rng)
    assert 0 < np.mean(law.logpdf(fresh).sum(axis=1)) - model.score(fresh) < 0.3
    # Normality counts the maps' slopes up to e, in deviations: not those of the edges, where most rows are.
    rows = model._read(fresh)[1]
    steep = model._log_slopes(rows)
    assert steep.max() == pytest.approx(2)
    parts = model.density_.log_prob(model._seed, rows), model._log_kernel(rows, model._width)[0]
    np.testing.assert_allclose(2 * model._normality(rows) - sum(parts), steep, atol=1e-4)
    middle, step = np.full((1, 2), 0.5), 1e-3
    slopes = (model._read(middle + step)[1].z - model._read(middle - step)[1].z)[0] / (2 * step) * model._spread
    assert np.all(slopes < np.e)
    assert model._log_slopes(model._read(middle)[1])[0] == pytest.approx(np.log(slopes).sum(), abs=0.02)


def test_a_row_below_all_held_out_ones_has_the_smallest_p_value(fitted):
    """One over their number and itself: never 0."""
    assert fitted.p_values([[1e3, 0, 0]])[0] == pytest.approx(1 / (1 + len(fitted._held_out)), rel=1e-9)
