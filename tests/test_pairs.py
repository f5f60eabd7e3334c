"""Options two at a time: of each public call, rows in which every pair of values occurs, and what holds in all of them.

`make test` runs the first row of each.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import polars
import pytest
from allpairspy import AllPairs
from scipy import integrate, stats

import kaem_jax as kaem
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.networks import Encoder
from kaem_jax.tables import TableDensity
from kaem_jax.training.optimizer import Group
from tests.builders import make_model, make_prior
from tests.linear_gaussian import linear_gaussian

KEY = jax.random.key(0)
MODEL, PARAMS, _ = linear_gaussian(np.random.default_rng(3), 2, 4, 0.7)
PARAMS |= {"encoder": {}}
X = np.random.default_rng(4).normal(size=(3, 4)).astype(np.float32)


class Vague(Encoder):
    """Says the prior of every datum."""

    def init(self, key):
        return {}

    def apply(self, params, x):
        return jnp.zeros((len(x), 2)), jnp.zeros((len(x), 2))


PROPOSALS = {
    "laplace": kaem.Laplace(num_modes=2, num_draws=50, num_steps=8),
    "prior": kaem.PriorProposal(),
    "encoder": kaem.EncoderProposal(Vague()),
}


def in_pairs(allowed=lambda **row: True, **options):
    """Parametrises a test with `row`, the options by name, of which every pair of values occurs that is allowed."""

    def keep(values):
        return len(values) < len(options) or allowed(**dict(zip(options, values, strict=True)))

    rows = [dict(zip(options, row, strict=True)) for row in AllPairs(list(options.values()), filter_func=keep)]
    return lambda test: pytest.mark.sweep(
        pytest.mark.parametrize("row", rows, ids=lambda row: "-".join(map(str, row.values())))(test)
    )


@in_pairs(
    lambda gaps, may_miss, inside, **_: not (gaps and may_miss is False) and not (inside and may_miss is None),
    proposal=list(PROPOSALS), num_samples=[1000, 3000], chunk_size=[20_000, 150], gaps=[False, True],
    may_miss=[None, True, False], inside=[False, True],
)  # fmt: skip
def test_log_prob_is_that_of_a_normal_law(row):
    """Inside jit or not, whatever proposes, in chunks or at once; or it says that it is a bound."""
    x = np.where(row["gaps"] & np.eye(3, 4, dtype=bool), np.nan, X)
    options = {name: row[name] for name in ("num_samples", "chunk_size", "may_miss")}

    def call(key, x):
        return kaem.log_prob(key, MODEL, PARAMS, x, proposal=PROPOSALS[row["proposal"]], **options)

    found = jax.jit(call)(KEY, x) if row["inside"] else call(KEY, x)
    weight, bias = (np.asarray(PARAMS["decoder"][name], float) for name in ("weight", "bias"))
    law = stats.multivariate_normal
    covariance = weight.T @ weight + 0.7**2 * np.eye(4)
    kept = [np.flatnonzero(~np.isnan(datum)) for datum in x]
    truth = [law(bias[k], covariance[np.ix_(k, k)]).logpdf(datum[k]) for datum, k in zip(x, kept, strict=True)]
    z = (found.value - np.array(truth)) / found.standard_error
    assert np.all(z < 4.5)
    assert np.all((z > -4.5) | found.is_bound)
    np.testing.assert_array_equal(found.is_bound, row["proposal"] == "encoder")  # of one mode


LIKELIHOODS = {
    "gaussian": kaem.Gaussian(0.3),
    "logistic": kaem.DiscretizedLogistic(),
    "bernoulli": kaem.Bernoulli(),
    "columns": kaem.Columns((1, 1, 2)),
}


@in_pairs(
    likelihood=list(LIKELIHOODS), proposal=["laplace", "prior"], num_draws=[2, 5], num_steps=[1, 3],
    missing=["one", "row", "nothing"], jitted=[False, True],
)  # fmt: skip
def test_what_is_there_stays_and_gaps_get_draws_that_differ(row):
    model = make_model(likelihood=LIKELIHOODS[row["likelihood"]], num_latents=2)
    params = jax.jit(model.init)(KEY)
    x = np.asarray(jax.jit(model.simulate)(KEY, params, np.ones((3, 2), np.float32)))
    gaps = {"one": np.arange(4) == 1, "row": np.full(4, True), "nothing": np.full(4, False)}[row["missing"]]
    x = np.where(gaps & (np.arange(3) != 1)[:, None], np.nan, x)
    options = {"proposal": PROPOSALS[row["proposal"]], "num_draws": row["num_draws"], "num_steps": row["num_steps"]}

    def call(key, x):
        return kaem.impute(key, model, params, x, **options), kaem.infer_latents(key, model, params, x, **options)

    filled, codes = (jax.jit(call) if row["jitted"] else call)(KEY, x)
    there = ~np.isnan(x)
    assert filled.draws.shape == (row["num_draws"], *x.shape)
    np.testing.assert_array_equal(filled.draws[:, there], np.broadcast_to(x[there], (row["num_draws"], there.sum())))
    np.testing.assert_array_equal(filled.mean[there], x[there])
    np.testing.assert_array_equal(filled.spread[there], 0)
    assert np.isfinite(filled.draws).all()
    assert np.all(codes.spread > 0)
    assert codes.mean.shape == (3, 2)
    if row["likelihood"] == "columns":
        np.testing.assert_array_equal(np.sort(filled.draws[..., 2:]), np.broadcast_to([0, 1], (row["num_draws"], 3, 2)))
    elif row["likelihood"] != "gaussian":
        assert filled.draws.min() >= 0
        assert filled.draws.max() <= 1
    elif not there.all():
        assert len(np.unique(filled.draws[:, ~there])) == row["num_draws"] * (~there).sum()


def leaves(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


SAMPLERS = {
    "importance": kaem.Importance(num_samples=500),
    "langevin": kaem.Langevin(num_steps=2, persistent=True),
    "variational": kaem.Variational(encoder=kaem.MLP((5,))),
    "particles": kaem.Particles(encoder=kaem.MLP((5,))),
    "tempered": kaem.Tempered(num_steps=2, steps_per_round=1, num_temperatures=3),
}


def frozen(sampler):
    return FrozenSampler.freeze(sampler, sampler.init(KEY, MODEL, PARAMS, 200), 0)


SLOW = Group(learning_rate=1e-5, warmup_steps=0)
OPTIMIZERS = {
    "rate": {"learning_rate": 1e-5},
    "groups": {"optimizer": kaem.Optimizer(prior=SLOW, decoder=SLOW)},
    "optax": {"optimizer": optax.adam(1e-5)},
}


@in_pairs(
    posterior=list(SAMPLERS), optimizer=list(OPTIMIZERS), given=[False, True], batch_size=[3, 7, 20],
    log_every=[None, 4], data=["floats", "bytes", "gaps"], prior=["clustered", "mixture", "product"],
)  # fmt: skip
def test_fit_goes_on_from_what_it_is_given(as_users_run_it, row):
    """By steps so small that it stays near, with every parameter; and it keeps the given arrays, and says each row."""
    likelihood = kaem.Columns((1,) * 4) if row["data"] == "gaps" else kaem.Gaussian(0.5)
    model = make_model(row["prior"], kaem.MLP((5,)), likelihood)
    sampler, rng = SAMPLERS[row["posterior"]], np.random.default_rng(0)
    x = rng.integers(0, 256, (7, 4)).astype(np.uint8) if row["data"] == "bytes" else rng.random((7, 4)).astype("f")
    x = np.where(np.eye(7, 4, dtype=bool), np.nan, x) if row["data"] == "gaps" else x
    params = jax.jit(lambda key: model.init(key) | sampler.init_params(key, model))(jax.random.key(5))
    params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape).astype(leaf.dtype) / 4, params)
    before = leaves(params)
    fitted = kaem.fit(
        KEY, model, x, posterior=sampler, num_steps=9, batch_size=row["batch_size"], log_every=row["log_every"],
        params=params if row["given"] else None, progress=False, **OPTIMIZERS[row["optimizer"]],
    )  # fmt: skip
    after = leaves(fitted.params)
    assert before.keys() == after.keys()
    for name, leaf in leaves(params).items():
        np.testing.assert_array_equal(leaf, before[name])
        assert leaf.dtype == after[name].dtype
        moved = np.abs(after[name] - leaf).max()
        is_kept = row["posterior"] == "particles" and "encoder" in name
        assert (moved == 0 if is_kept else 0 < moved < 1e-3) if row["given"] else moved > 0, name
    assert fitted.history["step"].tolist() == ([1, 4, 8, 9] if row["log_every"] else list(range(1, 10)))
    assert all(np.isfinite(values).all() for values in fitted.history.values())
    z = fitted.posterior.draw(
        KEY, model, fitted.params, jnp.asarray(x[:3] / np.float32(255 if row["data"] == "bytes" else 1))
    ).z
    assert len(np.unique(np.asarray(z).reshape(-1, 2), axis=0)) == z.size / 2 > 1


@in_pairs(
    classes=[0, 2], map=["full", "diagonal"], num_clusters=[2, 4], num_draws=[1, 3],
    posterior=["none", "importance", "langevin"],
    proportions=["uniform", "learned"],
)  # fmt: skip
def test_a_fitted_prior_is_a_density_with_the_classes_of_its_labels(as_users_run_it, row):
    """Of points, or of posterior draws: the density of each class lies where its data are, and has their share."""
    rng = np.random.default_rng(0)
    is_first = rng.random(200) < 0.3
    z = rng.normal(size=(200, 2)) * 0.4 + np.where(is_first, -1.5, 1.5)[:, None]
    labels = np.where(is_first, 0, 1) if row["classes"] else None
    given = {name: row[name] for name in ("map", "proportions")}
    prior = make_prior(
        "clustered", 2, row["num_clusters"], num_classes=row["classes"], grid_size=3, basis="rbf", **given
    )
    if row["posterior"] == "none":
        prior, params = kaem.fit_prior(KEY, np.stack([z] * row["num_draws"]), prior, labels=labels)
    else:
        x = MODEL.decode(PARAMS, jnp.asarray(z, jnp.float32))
        posterior = frozen(SAMPLERS[row["posterior"]])
        model, after = kaem.refit(KEY, MODEL, PARAMS, x, posterior, prior, labels=labels, num_draws=row["num_draws"])
        prior, params = model.prior, after["prior"]
        assert after["decoder"] is PARAMS["decoder"]
    bound = prior.bind(params)
    axis = np.linspace(-8, 8, 161)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).astype(np.float32)
    density = np.exp(np.asarray(bound.log_prob(grid), float))
    shares = np.exp(np.asarray(bound.log_responsibilities(grid), float))
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-4)

    def mass(of):
        return integrate.simpson(integrate.simpson(of * density, x=axis), x=axis)

    assert mass(np.ones_like(density)) == pytest.approx(1, abs=5e-3)
    if row["classes"]:
        first = shares[..., ::2].sum(axis=-1)
        assert mass(first) == pytest.approx(is_first.mean() if row["proportions"] == "learned" else 0.5, abs=0.05)
        assert mass(first * (grid.sum(axis=-1) < 0)) > 0.9 * mass(first)


FRAMES = {"array": lambda table: np.stack([*table.values()], 1), "pandas": pandas.DataFrame, "polars": polars.DataFrame}


def columns_of(table):
    """The cells by column, whatever holds them."""
    if isinstance(table, np.ndarray):
        return {"size": table[:, 0], "count": table[:, 1]}
    return {name: table[name].to_numpy() for name in table.columns}


@in_pairs(
    lambda **row: not (
        (row["method"] == "tree" and row["map"] == "diagonal")
        or (row["frame"] == "array" and (row["bounds"] or row["exclude"]))
    ),
    frame=list(FRAMES), method=["mixture", "tree"], num_clusters=[1, 3], map=["full", "diagonal"], gaps=[False, True],
    bounds=[None, {"size": (0, None)}], exclude=[(), ("count",)], contamination=[0.05, 0.3],
)  # fmt: skip
def test_a_table_has_a_density_row_by_row(row):
    """It adds up to one over each column; rows in another order, or one alone, have the same; what is there stays."""
    rng, make = np.random.default_rng(1), FRAMES[row["frame"]]
    kind = rng.integers(0, 2, 400)
    cells = {"size": rng.lognormal(kind, 0.5), "count": rng.poisson(3 + 4 * kind) + 1.0}
    gaps = {name: np.where(rng.random(400) < 0.2, np.nan, values) for name, values in cells.items()}
    kinds = {} if row["frame"] == "array" else {"kind": np.array(["left", "right"])[kind]}
    options = {name: row[name] for name in ("method", "num_clusters", "map", "bounds", "exclude", "contamination")}
    table = make((gaps if row["gaps"] else cells) | kinds)
    model = TableDensity(random_state=0, **options).fit(table)
    some = make({name: values[:12] for name, values in (gaps | kinds).items()})
    scores = model.score_samples(some)
    np.testing.assert_allclose(model.score_samples(some[::-1])[::-1], scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.score_samples(some[:1]), scores[:1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.predict(some) == -1, model.p_values(some) <= row["contamination"])

    def log_prob_of(name, values):
        of_gaps = {other: np.full(len(values), np.nan) for other in cells} | {
            other: [None] * len(values) for other in kinds
        }
        return model.score_samples(make(of_gaps | {name: values}))

    for name in sorted(cells.keys() - set(row["exclude"])):
        grid = np.concatenate([np.linspace(-60, 0.01, 1500), np.geomspace(0.0101, 2e3, 1500)])
        assert integrate.trapezoid(np.exp(log_prob_of(name, grid)), grid) == pytest.approx(1, abs=0.02), name
    if kinds:
        assert np.exp(log_prob_of("kind", np.array(["left", "right"]))).sum() == pytest.approx(1, abs=1e-3)
    filled, draws = columns_of(model.impute(some)), columns_of(model.sample(200, random_state=1))
    for name, values in gaps.items():
        is_kept = ~np.isnan(values[:12])
        np.testing.assert_allclose(filled[name][is_kept], values[:12][is_kept], rtol=1e-6)
        if name not in row["exclude"]:
            assert np.isfinite(filled[name]).all()
            assert np.isfinite(draws[name]).all()
    if "count" not in row["exclude"]:
        np.testing.assert_array_equal(draws["count"] % 1, 0)
    if row["bounds"]:
        assert min(draws["size"].min(), filled["size"].min()) > 0
    if kinds:
        assert set(draws["kind"]) == {"left", "right"}
