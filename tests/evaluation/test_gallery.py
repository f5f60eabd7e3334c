"""What is handed to the pictures of a run, with functions that only keep what they are asked to draw."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.data import PIXELS, Field, Table, Text
from kaem_jax.data.preprocessing import Column
from kaem_jax.evaluation import figures, gallery, latents
from kaem_jax.evaluation.evaluators.clusters import samples_of_clusters
from kaem_jax.evaluation.gallery import draw_progress
from kaem_jax.evaluation.latents import Learned, density_curves, learned_densities
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.run import Run
from kaem_jax.runs.run_folder import RunFolder
from tests.evaluation.conftest import small_run
from tests.evaluation.test_generate import far_clusters, nearest
from tests.linear_gaussian import linear_gaussian
from tests.training.tiny import tiny_config


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the name of its file: the arguments after the path."""
    found = {}
    monkeypatch.setattr(gallery, "learned_densities", lambda *_: Learned(*Learned._fields))
    for name in ("plot_pairs", "plot_curves", "plot_densities", "plot_marginals"):
        monkeypatch.setattr(figures, name, lambda path, *given, **named: found.update({path.stem: named or given}))
    return found


def only_named():
    """A sampler of training that has a name for its loss, and of which nothing else may be asked."""
    sampler = types.SimpleNamespace(loss_name=lambda objective, with_labels: f"loss, {objective=}, {with_labels=}")
    return types.SimpleNamespace(sampler=sampler)


@pytest.mark.slow
def test_held_out_data_stand_under_their_own_name(drawn, tmp_path):
    held_out = jnp.full((30, 8, 8), 2.0)  # which no sample can be
    run = dataclasses.replace(small_run(), training_posterior=only_named())
    draw_progress(RunFolder(tmp_path), jax.random.key(0), run, held_out)
    assert drawn["samples"]["generated"].shape == (100, 8, 8)
    assert np.max(drawn["samples"]["generated"]) <= 1
    assert np.max(drawn["reconstructions"]["reconstructed"]) <= 1
    np.testing.assert_array_equal(drawn["samples"]["held_out"], held_out)
    np.testing.assert_array_equal(drawn["reconstructions"]["held_out"], held_out[:20])


def test_rows_of_a_table_are_drawn_in_its_units(drawn, tmp_path):
    form = Table((Column("height", mean=170.0, scale=10.0), Column("colour", ("blue", "red"))))
    run = types.SimpleNamespace(form=form)
    gallery._draw_values(RunFolder(tmp_path), run, np.array([[1.0, 0, 1]]), np.array([[-2.0, 1, 0]]))
    names, ours, real = drawn["samples"]
    assert names == ["height", "colour=blue", "colour=red"]
    np.testing.assert_array_equal(ours, [[180, 0, 1]])
    np.testing.assert_array_equal(real, [[150, 1, 0]])


@pytest.mark.parametrize(
    ("columns", "num_channels", "expected"),
    [((), 1, ()), (("x",), 1, ()), (("x", "y"), 2, ("x", "y")), (("x",), 2, ("channel 0", "channel 1"))],
)
def test_every_channel_of_fields_is_handed_on_with_a_name(tmp_path, monkeypatch, columns, num_channels, expected):
    """An array of one name may have several."""
    found = []
    monkeypatch.setattr(figures, "plot_fields", lambda path, *given: found.extend(given))
    config = types.SimpleNamespace(data=types.SimpleNamespace(columns=columns))
    run = types.SimpleNamespace(form=Field((3.0,), (2.0,)), config=config)
    zeros = np.zeros((2, 4, 4, num_channels))
    gallery._draw_values(RunFolder(tmp_path), run, zeros, zeros + 1)
    ours, real, _, names = found
    np.testing.assert_array_equal(ours, zeros + 3)
    np.testing.assert_array_equal(real, zeros + 5)
    assert names == expected


def test_a_table_is_drawn_without_decoding_what_nobody_sees(drawn, tmp_path, monkeypatch):
    """Posterior draws of held-out data cost the most of all pictures, and rows have none that show them."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), 2, 2, 0.5)
    form = Table((Column("height"), Column("weight")))
    config = tiny_config(posterior__kind="tempered", loss__objective="steppingstone")
    run = Run(config, model, params, 0, only_named(), None, form=form)
    monkeypatch.setattr(gallery, "reconstruct", lambda *_: pytest.fail("nobody sees these"))
    monkeypatch.setattr(gallery, "sample_with_noise", lambda key, model, params, num: np.full((num, 2), 5.0))
    draw_progress(RunFolder(tmp_path), jax.random.key(0), run, jnp.zeros((30, 2)))
    assert drawn["samples"][0] == ["height", "weight"]
    assert (drawn["samples"][1].min(), drawn["samples"][2].max()) == (5, 0)
    assert drawn["densities"] == ("z", "density", "base", "names", "explained")
    assert drawn["curves"][1] == "loss, objective='steppingstone', with_labels=False"


def test_pictures_of_latents_are_of_the_latent_that_they_name(monkeypatch, tmp_path):
    """Latent 3 moves most, then latent 1; of four held-out data two pairs are joined."""
    found, z = {}, np.linspace([-3.0, -2.0], [3.0, 2.0], 50)
    learned = Learned(z, z + 10, z + 20, ["z3", "z1"], np.array([0.7, 0.3]), np.array([3, 1]))
    drawn_latents = np.arange(16.0).reshape(4, 4)

    def moved(model, params, latent, coordinates, levels):
        found["traverse"] = (latent, coordinates)
        return np.broadcast_to(np.asarray(coordinates, float)[:, None, None, None], (2, len(levels), 2, 2))

    monkeypatch.setattr(gallery, "draw_progress", lambda *_: learned)
    monkeypatch.setattr(gallery, "latents_of", lambda *_: drawn_latents)
    monkeypatch.setattr(gallery, "traverse", moved)
    monkeypatch.setattr(
        gallery, "interpolate", lambda _, params, *ends: np.stack([np.full((3, 2, 2), end[0]) for end in ends])
    )
    for name in ("plot_overview", "plot_rows"):
        monkeypatch.setattr(figures, name, lambda *given, name=name: found.setdefault(name, []).append(given))
    run = types.SimpleNamespace(
        model=types.SimpleNamespace(data_shape=(2, 2), prior=None), params={}, posterior=None, form=PIXELS
    )
    described = gallery.draw_all(RunFolder(tmp_path), jax.random.key(0), run, jnp.zeros((4, 2, 2)))
    assert [(entry["name"], entry["explained_variance"]) for entry in described] == [("z3", 0.7), ("z1", 0.3)]
    np.testing.assert_array_equal(found["traverse"][0], drawn_latents[0])
    assert found["traverse"][1].tolist() == [3, 1]
    _, *overview = found["plot_overview"][0]
    assert all(a is b for a, b in zip(overview, (*learned[:3], learned.explained), strict=True))
    (_, traversals, names, *_), (_, paths, labels, *_) = found["plot_rows"]
    assert [(name, row.max()) for name, row in zip(names, traversals, strict=True)] == [("z3\n70%", 3), ("z1\n30%", 1)]
    assert labels == ["u", "SLERP"] * 2
    assert [row.max() for row in paths] == [0, 4, 8, 12]


def test_densities_that_share_a_latent_follow_one_of_each_latent(monkeypatch):
    """Three densities of each of two latents, of which the second moves more."""
    model = kaem.Model(
        prior=kaem.ComonotonePrior(kaem.ProductPrior(num_latents=3, num_terms=2)),
        decoder=kaem.MLP(hidden=(4,)),
        likelihood=kaem.Gaussian(sigma=0.3),
        data_shape=(2,),
    )
    params = model.init(jax.random.key(0))
    monkeypatch.setattr(latents, "explained_variance", lambda *_: np.array([0.1, 0.6]))
    learned = learned_densities(jax.random.key(1), Run(Experiment(), model, params, 0, None, None))
    assert learned.coordinates.tolist()[:2] == [1, 0]
    assert learned.names == ["z0,1", "z0,0", "z1,1", "z2,1", "z1,0", "z2,0"]
    assert learned.explained.tolist() == [0.6, 0.1, 0.6, 0.6, 0.1, 0.1]
    *curves, names = density_curves(model, params)
    assert len({tuple(column) for column in curves[1].T}) == 6
    for ours, all_of_them in zip(learned[:3], curves, strict=True):
        np.testing.assert_array_equal(ours, all_of_them[:, [names.index(name) for name in learned.names]])


@pytest.mark.slow
def test_latents_are_ranked_by_how_much_of_the_output_each_moves():
    """A linear decoder whose rows have these lengths; each latent keeps its name and its place."""
    model, params, _ = linear_gaussian(np.random.default_rng(0), 4, 4, 0.5)
    lengths = np.array([0.1, 3.0, 1.0, 2.0])
    params["decoder"]["weight"] = jnp.diag(jnp.asarray(lengths, jnp.float32))
    learned = learned_densities(jax.random.key(0), Run(Experiment(), model, params, 0, None, None))
    assert learned.names == ["z1", "z3", "z2", "z0"]
    assert learned.coordinates.tolist() == [1, 3, 2, 0]
    np.testing.assert_allclose(learned.explained, np.array([9, 4, 1, 0.01]) / 14.01, atol=0.03)


def test_each_row_of_samples_is_drawn_from_the_cluster_that_it_names():
    model, params = far_clusters()
    run = Run(Experiment(), model, params, 0, None, None)
    samples, names = samples_of_clusters(jax.random.key(0), run)
    clusters = [int(name.split("\n")[0]) for name in names]
    assert sorted(clusters) == [0, 1, 2, 3]
    for row, cluster in zip(samples, clusters, strict=True):
        assert np.mean(nearest(row) == cluster) > 0.9


def test_texts_stand_under_the_cluster_that_they_are_drawn_from(monkeypatch, tmp_path):
    """With a model whose cluster c says the word c only."""
    model, params = far_clusters()
    form = Text("word", 2, ("nought", "one", "two", "three"))
    run, asked = Run(Experiment(), model, params, 0, "of training", "of evaluation", form=form), []

    def said(key, model, params, num, *, cluster=None):
        return np.full((num, 2), 1 if cluster is None else cluster + 2)

    def lines_of(name, x):
        gallery._write_texts(RunFolder(tmp_path), jax.random.key(0), jax.random.key(1), run, x)
        return RunFolder(tmp_path).texts(name).read_text().splitlines()

    monkeypatch.setattr(gallery, "sample_with_noise", said)
    monkeypatch.setattr(gallery, "share_recovered", lambda *given: asked.append(given) or (given[3], 1.0))
    lines = lines_of("clusters", jnp.ones((1, 2), int))
    blocks = [lines[first : first + 6] for first in range(0, len(lines), 6)]  # a heading, four texts, an empty line
    words = {"cluster 0": "nought", "cluster 1": "one", "cluster 2": "two", "cluster 3": "three"}
    assert {heading.partition(",")[0]: texts for heading, *texts in blocks} == {
        heading: [*[f"{word} {word}"] * 4, ""] for heading, word in words.items()
    }
    assert asked[0][-1] == "of evaluation"
    rows = jnp.asarray([[i // 4, i % 4] for i in range(16)] * 2)  # more than are shown; each two have other neighbours
    lines = lines_of("reconstructions", rows)
    assert len(lines) == 3 * gallery._NUM_TEXTS
    assert lines[0::3] == lines[1::3] == form.decode(np.asarray(rows[: gallery._NUM_TEXTS]))
