"""What is sampled of a model, what is handed to the pictures of a run, and densities, paths and modes of latents."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import kaem_jax as kaem
from kaem_jax.app.data import PIXELS, Table, Text
from kaem_jax.app.evaluation import figures, gallery, generate, latents
from kaem_jax.app.evaluation.evaluators import HeldOut
from kaem_jax.app.evaluation.generate import sample_with_noise
from kaem_jax.app.evaluation.latents import (
    Learned,
    describe_latents,
    find_modes,
    latents_between,
    learned_densities,
    traverse,
)
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.inference.samplers import FrozenSampler, Importance
from kaem_jax.tables.column import Column
from tests.app.evaluation.conftest import CENTRES, far_clusters, nearest, numbers_of
from tests.builders import make_model, make_prior
from tests.linear_gaussian import Fixed, Linear
from tests.truth import assert_within

KEY = jax.random.key(0)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the name of its file: the arguments after the path."""
    found = {}
    for name in ("plot_pairs", "plot_curves", "plot_densities", "plot_marginals", "plot_rows"):
        monkeypatch.setattr(figures, name, lambda path, *given, **named: found.update({path.stem: named or given}))
    return found


def run_of(model, params, form):
    posterior = FrozenSampler(Importance(num_samples=4000), (), 0)
    return Run(Experiment(), model, params, 0, posterior, posterior, form=form)


def test_pictures_are_of_the_data_and_of_the_latent_or_cluster_that_they_name(drawn, folder):
    """Of 2 x 2 pixels, one for each latent; the second latent moves its pixel twice as far."""

    def picture(z):
        return (0.1 * z[..., :, None] * jnp.asarray([[1.0, 0.0], [0.0, 2.0]])) + 0.5

    run = run_of(*far_clusters(picture, (2, 2), sigma=0.03), PIXELS)
    held_out = picture(jnp.asarray(CENTRES[np.arange(104) % 4]))
    described = gallery.draw_all(folder, KEY, HeldOut(run, None, np.arange(104), held_out, (), None, 20, 0))
    for name in ("samples", "reconstructions"):
        np.testing.assert_array_equal(drawn[name]["held_out"], held_out[:100])
    np.testing.assert_allclose(drawn["reconstructions"]["reconstructed"], held_out[:100], atol=0.1)
    generated = drawn["samples"]["generated"]
    assert len(np.unique(generated[:, 0, 0])) == 100
    assert set(nearest((generated[:, [0, 1], [0, 1]] - 0.5) * [10, 5])) == {0, 1, 2, 3}
    assert [entry["name"] for entry in described] == list(drawn["densities"][3]) == ["z1", "z0"]
    images, names, *_ = drawn["traversals"]
    assert [name[:2] for name in names] == ["z1", "z0"]
    for row, pixel in zip(images, (1, 0), strict=True):  # up through the levels, and the other pixel stays
        assert np.all(np.diff(row[:, pixel, pixel]) > 0)
        np.testing.assert_allclose(np.ptp(row[:, 1 - pixel, 1 - pixel]), 0, atol=1e-5)
    paths, *_ = drawn["interpolations"]
    np.testing.assert_allclose(paths[:, 0], held_out[:10:2], atol=0.15)
    np.testing.assert_allclose(paths[:, -1], held_out[1:10:2], atol=0.15)
    samples, names, *_ = drawn["clusters"]
    clusters = [int(name.split("\n")[0]) for name in names]
    assert sorted(clusters) == [0, 1, 2, 3]
    for row, cluster in zip(np.asarray(samples), clusters, strict=True):
        assert np.mean(nearest((row[:, [0, 1], [0, 1]] - 0.5) * [10, 5]) == cluster) > 0.9


def test_rows_of_a_table_are_drawn_in_its_units_and_not_reconstructed(drawn, folder):
    form = Table((Column("height", mean=170.0, scale=10.0), Column("weight")))
    run = run_of(*far_clusters(), form)
    gallery.draw_samples(folder, KEY, run, jnp.ones((30, 2)))
    gallery.draw_held_out(folder, run, jnp.ones((30, 2)), jnp.ones((30, 2)))
    assert "reconstructions" not in drawn
    names, ours, real = drawn["samples"]
    assert names == ["height", "weight"]
    np.testing.assert_array_equal(real, [[180, 1]] * 30)
    shares = np.bincount(nearest((ours - [170, 0]) / [10, 1]), minlength=4) / len(ours)
    np.testing.assert_allclose(shares, 0.25, atol=0.1)


def test_densities_that_share_a_latent_follow_one_of_each_latent():
    """Three densities of each of two latents, by what these explain; curves go with their names."""
    prior = make_prior("comonotone", 3, 2, basis="rbf")
    model = kaem.Model(prior, Fixed(lambda v: v[..., :2] * jnp.asarray([1.0, 2.0]), (2,)), kaem.Gaussian(0.3))
    params = {"prior": jax.jit(prior.init)(jax.random.key(0)), "decoder": {}, "likelihood": {}}
    learned = learned_densities(KEY, Run(Experiment(), model, params, 0, None, None))
    explained = np.asarray(latents.explained_variance(KEY, model, params))
    more, less = np.argsort(-explained)
    assert learned.coordinates.tolist()[:2] == [more, less]
    assert learned.names == [f"z0,{more}", f"z0,{less}"] + [f"z{q},{p}" for p in (more, less) for q in (1, 2)]
    np.testing.assert_allclose(learned.explained, explained[[more, less, more, more, less, less]], rtol=1e-5)
    *curves, names = latents.density_curves(model, params)
    for ours, all_of_them in zip(learned[:3], curves, strict=True):
        np.testing.assert_array_equal(ours, all_of_them[:, [names.index(name) for name in learned.names]])


def test_what_a_latent_explains_is_its_total_effect():
    """Of z0 + 2 z1 z2, where z1 and z2 move four fifths of the variance, but neither moves any alone."""
    prior = make_prior("product", 3, 1, basis="rbf", coefficient_scale=0.0, base_scale=0.0)  # N(0, 1) each
    model = kaem.Model(prior, Fixed(lambda z: z[..., :1] + 2 * z[..., 1:2] * z[..., 2:]), kaem.Gaussian(), (1,))
    params = {"prior": jax.jit(prior.init)(KEY), "decoder": {}, "likelihood": {}}
    found = [latents.explained_variance(key, model, params) for key in jax.random.split(KEY, 10)]
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert_within(np.mean(found, axis=0)[:, 0], [0.2, 0.8, 0.8], error[:, 0], 4)
    assert error.max() < 0.02


def test_texts_stand_under_the_cluster_that_they_are_drawn_from(monkeypatch, folder):
    """With a model whose cluster c says the word c only."""
    form, asked, keys = Text("word", 2, ("nought", "one", "two", "three")), [], []
    of_evaluation = types.SimpleNamespace(draw_one=lambda key, model, params, x: ["drawn", x.shape])
    run = Run(Experiment(), *far_clusters(), 0, "of training", of_evaluation, form=form)

    def said(key, model, params, num, *, cluster=None):
        keys.append(numbers_of(key))
        return np.full((num, 2), 1 if cluster is None else cluster + 2)

    monkeypatch.setattr(gallery, "sample_with_noise", said)
    monkeypatch.setattr(gallery, "share_recovered", lambda *given: asked.append(given) or (given[3], 1.0))
    rows = jnp.asarray([[i // 4, i % 4] for i in range(16)] * 2)  # more than are shown; each two have other neighbours
    gallery._write_texts(folder, KEY, jax.random.key(1), run, rows)
    lines, again = (folder.texts(name).read_text().splitlines() for name in ("clusters", "reconstructions"))
    blocks = [lines[first : first + 6] for first in range(0, len(lines), 6)]  # a heading, four texts, an empty line
    assert {heading.partition(",")[0]: texts for heading, *texts in blocks} == {
        f"cluster {c}": [*[f"{word} {word}"] * 4, ""] for c, word in enumerate(form.vocabulary)
    }
    assert (len(set(keys)), asked[0][2]) == (5, ["drawn", (gallery._NUM_TEXTS, 2)])
    assert len(again) == 3 * gallery._NUM_TEXTS
    assert again[0::3] == again[1::3] == form.decode(np.asarray(rows[: gallery._NUM_TEXTS]))


def test_rows_come_from_the_cluster_or_the_class_that_is_asked_for_each_with_noise_of_its_own():
    """Also where a model says the same of every latent, so that rows of both batches differ by their noise only."""
    model, params = far_clusters()
    for part, shares in (({}, [0.25] * 4), ({"cluster": 2}, [0, 0, 1, 0])):
        rows = sample_with_noise(jax.random.key(1), model, params, 300, **part)
        np.testing.assert_allclose(np.bincount(nearest(rows), minlength=4) / 300, shares, atol=0.12)
    model, params = far_clusters(lambda z: 0 * z)
    rows = sample_with_noise(jax.random.key(1), model, params, 300)
    assert len(np.unique(rows, axis=0)) == 300


def test_blocks_of_samples_are_different_ones_of_the_same_part():
    model, params = far_clusters()
    many, few = (
        np.concatenate(list(generate.sample_in_batches(jax.random.key(1), model, params, num, label=1)))
        for num in (generate.BLOCK + 300, 300)
    )
    assert many.shape == (generate.BLOCK + 300, 2)
    assert len(np.unique(many, axis=0)) > 0.99 * len(many)  # float32 has equal ones
    assert np.isin(nearest(many), [1, 3]).mean() > 0.98
    np.testing.assert_array_equal(few, many[:300])  # the first draws are the same for every number


Z = np.linspace(-6, 6, 400)


def bimodal(z):
    return 0.3 * stats.norm(-1.5, 0.4).pdf(z) + 0.7 * stats.norm(1, 0.6).pdf(z)


def test_modes_of_a_mixture():
    low, high = find_modes(Z, bimodal(Z))
    assert (low["location"], high["location"]) == pytest.approx((-1.5, 1.0), abs=0.05)
    assert (low["mass"], high["mass"]) == pytest.approx((0.3, 0.7), abs=0.01)
    assert high["height"] == pytest.approx(bimodal(high["location"]))


def test_modes_at_the_ends_count_and_ripples_do_not():
    z = np.linspace(0, 1, 200)
    assert [round(mode["location"], 2) for mode in find_modes(z, 0.2 + (2 * z - 1) ** 2)] == [0, 1]
    assert len(find_modes(z, 1 + 5e-4 * np.cos(16 * np.pi * z))) == 1  # peaks of one height
    assert len(find_modes(Z, stats.norm.pdf(Z) * (1 + 3e-3 * np.sin(40 * Z)))) == 1
    (flat,) = find_modes(z, np.ones(200))
    assert flat["location"] == pytest.approx(0.5, abs=0.01)


def test_a_description_has_the_moments_and_the_distance_from_the_base():
    normal = stats.norm(0, 1).pdf(Z)
    curves = np.stack([normal, bimodal(Z)], axis=1), np.stack([normal, normal], axis=1)
    found = describe_latents(Learned(np.stack([Z, Z], 1), *curves, ["a", "b"], np.array([0.6, 0.1]), np.arange(2)))
    second, first = found
    assert [(entry["name"], entry["explained_variance"]) for entry in found] == [("a", 0.6), ("b", 0.1)]
    assert second["distance_from_base"] == pytest.approx(0, abs=1e-8)
    assert first["mean"] == pytest.approx(0.25, abs=1e-3)
    variance = 0.3 * (0.4**2 + 1.5**2) + 0.7 * (0.6**2 + 1) - 0.25**2
    assert first["standard_deviation"] == pytest.approx(np.sqrt(variance), abs=1e-3)
    assert len(first["modes"]) == 2
    # A narrow density on its own narrow range: the base's mass beyond it counts.
    narrow = np.linspace(-0.3, 0.3, 400)[:, None]
    curves = stats.norm(0, 0.05).pdf(narrow), stats.norm(0, 1).pdf(narrow)
    (entry,) = describe_latents(Learned(narrow, *curves, ["c"], np.array([1.0]), np.arange(1)))
    assert entry["distance_from_base"] == pytest.approx(0.888, abs=2e-3)


LEVELS = jnp.asarray([0.1, 0.5, 0.9])


def model_of(kind):
    """A model whose image is its features, and its parameters."""
    model = make_model(kind, Linear((3,)), kaem.Gaussian(sigma=0.1), (3,), num_latents=3, num_each=2)
    decoder = {"weight": jnp.eye(3), "bias": jnp.zeros(3)}
    return model, {"prior": jax.jit(model.prior.init)(jax.random.key(0)), "decoder": decoder, "likelihood": {}}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["mixture", "product", "comonotone", "neural"])
@pytest.mark.slow
def test_coordinates_move_along_their_quantiles_and_paths_join_the_data(kind):
    model, params = model_of(kind)
    first, second = jax.random.normal(jax.random.key(1), (2, *model.prior.event_shape))
    size = first.size
    images = np.asarray(traverse(model, params, first, jnp.arange(size), LEVELS))
    assert images.shape == (size, 3, 3)
    still, *_ = ends = np.asarray(jax.jit(model.decode)(params, jnp.stack([first, second])))
    # Each coordinate feeds one feature (all of them where it is shared): the others stay.
    for i in range(size):
        fed = np.arange(3) if kind == "comonotone" else [i // 2 if kind == "product" else i]
        moved = np.any(np.abs(images[i] - still) > 1e-4, axis=0)
        assert set(np.flatnonzero(moved)) <= set(fed)
        assert np.all(np.diff(images[i], axis=0)[:, fed] > 0)  # up through the levels
    if kind == "mixture":
        at = model.prior.bind(params["prior"]).cdf(images[[0, 1, 2], :, [0, 1, 2]].T)
        np.testing.assert_allclose(at, np.broadcast_to(LEVELS[:, None], (3, 3)), rtol=1e-4)
    if kind == "neural":
        table = model.prior.bind(params["prior"])
        draws = np.asarray(table.sample(jax.random.key(7), (4096,)))
        np.testing.assert_allclose(images[[0, 1, 2], :, [0, 1, 2]].T, np.quantile(draws, LEVELS, axis=0), atol=0.2)
    path = model.decode(params, latents_between(model, params, first, second, 5))
    assert path.shape == (5, 3)
    np.testing.assert_allclose(path[jnp.asarray([0, 4])], ends, atol=0.1 if kind == "neural" else 1e-3)


def test_a_path_is_straight_in_probability(rng):
    """On an exactly normal prior, against scipy in float64."""
    model, params = model_of("mixture")
    params["prior"] = params["prior"] | {"bank": jax.tree.map(jnp.zeros_like, params["prior"]["bank"])}
    a, b = rng.normal(size=(2, 3))
    found = latents_between(model, params, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 5)
    t = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(found, special.ndtri((1 - t) * special.ndtr(a) + t * special.ndtr(b)), atol=1e-4)
