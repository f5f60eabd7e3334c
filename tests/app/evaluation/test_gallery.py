"""What is sampled of a model, and what is handed to the pictures of a run."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app.data import PIXELS, Table, Text
from kaem_jax.app.evaluation import figures, gallery, generate, latents
from kaem_jax.app.evaluation.evaluators.clusters import samples_of_clusters
from kaem_jax.app.evaluation.generate import sample_with_noise
from kaem_jax.app.evaluation.latents import Learned, learned_densities
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.tables.column import Column
from tests.app.evaluation.conftest import numbers_of
from tests.app.tiny import tiny_config
from tests.builders import make_prior
from tests.linear_gaussian import Fixed, Linear
from tests.truth import assert_within

KEY = jax.random.key(0)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by the name of its file: the arguments after the path; and the keys that were used."""
    found = {"keys": []}

    def keep(path, *given, **named):
        found[path.stem] = named or given

    def keyed(value):
        return lambda key, *_: found["keys"].append(numbers_of(key)) or value

    for name in ("plot_pairs", "plot_curves", "plot_densities", "plot_marginals", "plot_fields"):
        monkeypatch.setattr(figures, name, keep)
    monkeypatch.setattr(gallery, "learned_densities", keyed(Learned(*Learned._fields)))
    monkeypatch.setattr(gallery, "sample_with_noise", keyed(np.full((9, 2), 5.0)))
    monkeypatch.setattr(gallery, "sample_in_batches", keyed([np.full((100, 8, 8), 7.0)]))
    again = keyed((np.full((30, 8, 8), 3.0), 0.1))
    monkeypatch.setattr(gallery, "reconstruct", again)
    found["keyed"] = keyed
    return found


def only_named(**fields):
    """A run of which nothing else may be asked."""
    made = {"config": tiny_config(posterior__kind="tempered"), "params": {}, "posterior": "of evaluation"}
    return types.SimpleNamespace(**made, **fields)


def curves_of(num):
    """Curves of this many densities, each with numbers of its own."""
    of_each = np.arange(num) + np.arange(5)[:, None] / 8
    return of_each, of_each + 0.1, of_each + 0.2


def test_held_out_data_stand_under_their_own_name(drawn, folder):
    model = types.SimpleNamespace(data_shape=(8, 8))
    held_out, run = np.arange(130)[:, None, None] * np.ones((8, 8)), only_named(form=PIXELS, model=model)
    gallery.draw_samples(folder, KEY, run, held_out)
    gallery.draw_held_out(folder, run, held_out, np.full((120, 8, 8), 3.0))
    assert len(set(drawn["keys"])) == len(drawn["keys"]) == 2  # of samples and densities
    assert np.unique(drawn["samples"]["generated"]) == 7
    assert np.unique(drawn["reconstructions"]["reconstructed"]) == 3
    for name in ("samples", "reconstructions"):
        np.testing.assert_array_equal(drawn[name]["held_out"], held_out[:100])


def test_rows_of_a_table_are_drawn_in_its_units_and_not_reconstructed(drawn, folder):
    form = Table((Column("height", mean=170.0, scale=10.0), Column("weight")))
    run = only_named(form=form, model=types.SimpleNamespace(data_shape=(2,)))
    gallery.draw_samples(folder, KEY, run, jnp.ones((30, 2)))
    gallery.draw_held_out(folder, run, jnp.ones((30, 2)), jnp.ones((30, 2)))
    assert "reconstructions" not in drawn
    names, ours, real = drawn["samples"]
    assert names == ["height", "weight"]
    np.testing.assert_array_equal(ours, [[220, 5]] * 9)
    np.testing.assert_array_equal(real, [[180, 1]] * 30)
    assert drawn["densities"] == ("z", "density", "base", "names", "explained")
    assert len(set(drawn["keys"])) == 2


def test_pictures_of_latents_are_of_the_latent_that_they_name(drawn, monkeypatch, folder):
    """Latent 3 moves most, then latent 1; of four held-out data two pairs are joined."""
    learned = Learned(*curves_of(2), ["z3", "z1"], np.array([0.7, 0.3]), np.array([3, 1]))
    drawn_latents, found, keyed = np.arange(16.0).reshape(4, 4), {}, drawn["keyed"]

    def moved(model, params, latent, coordinates, levels):
        found["traverse"] = (latent, coordinates)
        return np.broadcast_to(np.asarray(coordinates, float)[:, None, None, None], (2, len(levels), 2, 2))

    def joined(_, params, first, second):
        return np.stack([np.full((2, 2), value) for value in (first[0], 0, second[0])])

    monkeypatch.setattr(gallery, "draw_samples", lambda folder, key, *_: keyed(learned)(key))
    monkeypatch.setattr(gallery, "draw_held_out", lambda *given: found.setdefault("judged", given))
    monkeypatch.setattr(gallery, "samples_of_clusters", keyed((np.full((4, 5, 2, 2), 6.0), ["0", "1", "2", "3"])))
    monkeypatch.setattr(gallery, "traverse", moved)
    monkeypatch.setattr(gallery, "latents_between", joined)
    monkeypatch.setattr(figures, "plot_rows", lambda *given: found.setdefault("plot_rows", []).append(given))
    decode = lambda params, z: z  # noqa: E731
    model = types.SimpleNamespace(data_shape=(2, 2), prior=far_clusters()[0].prior, decode=decode)
    posterior = types.SimpleNamespace(draw_one=keyed(drawn_latents))
    run = types.SimpleNamespace(model=model, params={}, posterior=posterior, form=PIXELS)
    described = gallery.draw_all(folder, KEY, run, jnp.zeros((4, 2, 2)))
    assert [(entry["name"], entry["explained_variance"]) for entry in described] == [("z3", 0.7), ("z1", 0.3)]
    np.testing.assert_array_equal(found["traverse"][0], drawn_latents[0])
    assert found["traverse"][1].tolist() == [3, 1]
    (_, traversals, names, *_), (_, paths, labels, *_), (_, samples, of_clusters, *_) = found["plot_rows"]
    assert [(name, row.max()) for name, row in zip(names, traversals, strict=True)] == [("z3\n70%", 3), ("z1\n30%", 1)]
    assert labels == [""] * 2
    assert [row[[0, 2], 0, 0].tolist() for row in paths] == [[0, 4], [8, 12]]
    assert (samples.min(), of_clusters) == (6, ["0", "1", "2", "3"])
    assert np.unique(found["judged"][-1]) == 3
    assert len(set(drawn["keys"])) == len(drawn["keys"]) == 4


def test_densities_that_share_a_latent_follow_one_of_each_latent(monkeypatch):
    """Three densities of each of two latents, of which the second moves more."""
    prior = make_prior("comonotone", 3, 2)
    model = kaem.Model(prior, kaem.MLP((4,)), kaem.Gaussian(0.3), (2,))
    names = latents.latent_names(prior.centred.event_shape)
    monkeypatch.setattr(latents, "explained_variance", lambda *_: np.array([0.1, 0.6]))
    monkeypatch.setattr(latents, "density_curves", lambda *_: (*curves_of(6), names))
    learned = learned_densities(KEY, Run(Experiment(), model, {}, 0, None, None))
    assert learned.coordinates.tolist()[:2] == [1, 0]
    assert learned.names == ["z0,1", "z0,0", "z1,1", "z2,1", "z1,0", "z2,0"]
    assert learned.explained.tolist() == [0.6, 0.1, 0.6, 0.6, 0.1, 0.1]
    for ours, all_of_them in zip(learned[:3], curves_of(6), strict=True):
        np.testing.assert_array_equal(ours, all_of_them[:, [names.index(name) for name in learned.names]])


def test_what_a_latent_explains_is_its_total_effect():
    """Of z0 + 2 z1 z2, where z1 and z2 move four fifths of the variance, but neither moves any alone."""
    prior = make_prior("product", 3, 1, basis="rbf", coefficient_scale=0.0, base_scale=0.0)  # N(0, 1) each
    model = kaem.Model(prior, Fixed(lambda z: z[..., :1] + 2 * z[..., 1:2] * z[..., 2:]), kaem.Gaussian(), (1,))
    params = model.init(KEY)
    found = [latents.explained_variance(key, model, params) for key in jax.random.split(KEY, 10)]
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert_within(np.mean(found, axis=0)[:, 0], [0.2, 0.8, 0.8], error[:, 0], 4)
    assert error.max() < 0.02


def test_each_row_of_samples_is_drawn_from_the_cluster_that_it_names():
    samples, names = samples_of_clusters(KEY, Run(Experiment(), *far_clusters(), 0, None, None))
    clusters = [int(name.split("\n")[0]) for name in names]
    assert sorted(clusters) == [0, 1, 2, 3]
    for row, cluster in zip(samples, clusters, strict=True):
        assert np.mean(nearest(row) == cluster) > 0.9


def test_texts_stand_under_the_cluster_that_they_are_drawn_from(monkeypatch, folder):
    """With a model whose cluster c says the word c only."""
    form, asked, keys = Text("word", 2, ("nought", "one", "two", "three")), [], []
    run = Run(Experiment(), *far_clusters(), 0, "of training", "of evaluation", form=form)

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
    assert (len(set(keys)), asked[0][-1]) == (5, "of evaluation")
    assert len(again) == 3 * gallery._NUM_TEXTS
    assert again[0::3] == again[1::3] == form.decode(np.asarray(rows[: gallery._NUM_TEXTS]))


# Of four clusters, six standard deviations apart.
CENTRES = np.array([[-3, -3], [-3, 3], [3, -3], [3, 3]], np.float32)


def far_clusters():
    """Model and parameters: x is z with next to no noise; cluster c is N(CENTRES[c], I), and of class c mod 2."""
    prior = make_prior("clustered", 2, 4, num_classes=2, basis="rbf")
    model = kaem.Model(prior, Linear((2,)), kaem.Gaussian(sigma=1e-3))
    params = {"prior": prior.init(jax.random.key(0)), "likelihood": {}}
    params["prior"]["location"] = jnp.asarray(CENTRES)
    params["decoder"] = {"weight": jnp.eye(2), "bias": jnp.zeros(2)}
    return model, params


def nearest(x):
    """The cluster whose centre is nearest to each of x [..., 2]."""
    return np.argmin(np.square(np.asarray(x)[..., None, :] - CENTRES).sum(axis=-1), axis=-1)


def test_rows_come_from_the_cluster_or_the_class_that_is_asked_for_each_with_noise_of_its_own():
    """Also where a model says the same of every latent, so that rows of both batches differ by their noise only."""
    model, params = far_clusters()
    for part, shares in (({}, [0.25] * 4), ({"cluster": 2}, [0, 0, 1, 0]), ({"label": 1}, [0, 0.5, 0, 0.5])):
        rows = sample_with_noise(jax.random.key(1), model, params, 300, **part)
        np.testing.assert_allclose(np.bincount(nearest(rows), minlength=4) / 300, shares, atol=0.12)
    params["decoder"]["weight"] = jnp.zeros((2, 2))
    rows = sample_with_noise(jax.random.key(1), model, params, 300)
    assert rows.shape == (300, 2)
    assert len(np.unique(rows, axis=0)) == 300


def test_blocks_of_samples_are_different_ones_of_the_same_part(monkeypatch):
    monkeypatch.setattr(generate, "BLOCK", 16)
    monkeypatch.setattr(generate, "_BATCH", 8)
    model, params = far_clusters()
    many, few = (
        np.concatenate(list(generate.sample_in_batches(jax.random.key(1), model, params, num, label=1)))
        for num in (40, 21)
    )
    assert many.shape == (40, 2)
    assert len(np.unique(many, axis=0)) == 40
    assert set(nearest(many)) == {1, 3}
    np.testing.assert_array_equal(few, many[:21])  # the first draws are the same for every number
