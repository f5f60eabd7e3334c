"""Options of the training step: averages, mirror images, classes, each against the same step by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.data import Batch, Table
from kaem_jax.data.dataset import Dataset
from kaem_jax.data.preprocessing import Column
from kaem_jax.errors import ConfigError
from kaem_jax.priors.grid_update import update_grid
from kaem_jax.runs.bind import bind
from kaem_jax.training.keys import step_keys
from kaem_jax.training.step import make_grid_update
from tests.training.tiny import parts_of, tiny_config

NUM_DATA = 64
LABELLED = {
    "posterior__kind": "variational", "posterior__encoder__hidden": (16,), "evaluation__proposal": "encoder",
    "prior__kind": "clustered", "prior__num_clusters": 4, "prior__num_classes": 2, "data__labels": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _setting():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def batch(rng):
    """Two minibatches of eight; every datum is a picture of its own."""
    data = jnp.asarray(rng.uniform(size=(NUM_DATA, 8, 8)), jnp.float32)
    rows = jnp.asarray(rng.permutation(NUM_DATA)[:16].reshape(2, 8), jnp.int32)
    return Batch(data, rows, rows)


def copied(state):
    return jax.tree.map(jnp.copy, state)  # steps donate their state


@pytest.mark.slow
def test_the_average_of_parameters_by_hand(batch):
    config = tiny_config(optimizer__average_decay=0.3, train__steps_per_call=1)
    parts = parts_of(config, NUM_DATA)
    step = parts.train_step()
    state, expected = parts.state, jax.device_get(parts.state.params)
    for i, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.3, 0.3)):  # (1 + t) / (10 + t), at most 0.3
        state, _ = step(state, Batch(batch.stored, batch.rows[i % 2][None], batch.indices[i % 2][None]))
        expected = jax.tree.map(lambda mean, new, d=decay: d * mean + (1 - d) * np.asarray(new), expected, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.average, expected)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), state.average, state.params))
    assert max(moved) > 1e-4
    assert state.evaluated is state.average
    assert parts_of(tiny_config(), NUM_DATA).state.average is None


@pytest.mark.slow
def test_the_average_follows_a_scale_that_is_annealed(batch):
    """An average would lag: at a decay of 0.9 by half of such a schedule."""
    config = tiny_config(
        optimizer__average_decay=0.9, train__steps_per_call=1, likelihood__learn_sigma=False, likelihood__sigma=0.1,
        likelihood__anneal_from=1.0, likelihood__anneal_steps=4,
    )  # fmt: skip
    parts = parts_of(config, NUM_DATA)
    step, state = parts.train_step(), parts.state
    for count in range(1, 4):
        state, _ = step(state, Batch(batch.stored, batch.rows[:1], batch.indices[:1]))
        (scale,) = jax.tree.leaves(state.average["likelihood"])
        np.testing.assert_allclose(scale, count / 4 * np.log(0.1), rtol=1e-5)
    weights = (tree["decoder"] for tree in (state.average, state.params))
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, weights), strict=True))


@pytest.mark.slow
def test_a_grid_update_restarts_the_average_of_what_it_refits(batch):
    config = tiny_config(optimizer__average_decay=0.9, grid_update__first_step=1, grid_update__source="prior")
    parts = parts_of(config, NUM_DATA)
    other = jax.tree.map(lambda leaf: leaf + 1, parts.state.params)
    before = copied(parts.state)
    update = make_grid_update(parts.model, parts.sampler, settings=config.grid_update)
    new, info = update(dataclasses.replace(parts.state, average=other), batch)
    assert info["grid_accepted"] == 1
    bank, average = new.params["prior"]["bank"], new.average["prior"]["bank"]
    following, _ = update_grid(parts.model.prior, before.params["prior"])  # the prior itself, not draws
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), bank, following["bank"])
    for name in ("grid", "coefficients"):
        assert np.any(np.asarray(bank[name]) != np.asarray(before.params["prior"]["bank"][name]))
    assert set(average) == set(bank) > {"base_weight", "basis_weight"}
    for name in bank:  # coefficients were refitted to what the other parameters leave of the curve
        np.testing.assert_array_equal(average[name], bank[name])
    jax.tree.map(
        np.testing.assert_array_equal,
        new.average["decoder"],
        jax.tree.map(lambda a: a + 1, before.params)["decoder"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_mirror_images_and_transposes_are_those_of_the_step_key(batch, channels):
    """A step that makes them equals one that does not, on data that were changed by hand with the step's own keys.

    Left and right change places, then rows and columns, and colours do not.
    """
    flipping, plain = (
        parts_of(tiny_config(data__flip=on, data__transpose=on), NUM_DATA, data_shape=(8, 8, *channels))
        for on in (True, False)
    )
    data = np.array(batch.stored)
    if channels:
        data = data[..., None] * np.array([1.0, 0.5, 0.2], np.float32)
        batch = dataclasses.replace(batch, stored=jnp.asarray(data))
    state = flipping.state
    keys = step_keys(state.root_key, 0)
    mirrored, swapped = (
        np.asarray(jax.random.bernoulli(key, shape=(8, 1, 1)))[:, 0, 0] for key in (keys.flip, keys.transpose)
    )
    assert 0 < mirrored.sum() < 8
    assert 0 < swapped.sum() < 8
    assert np.any(mirrored != swapped)
    rows = np.asarray(batch.rows[0])
    data[rows[mirrored]] = data[rows[mirrored]][:, :, ::-1]
    data[rows[swapped]] = data[rows[swapped]].swapaxes(1, 2)
    one = Batch(batch.stored, batch.rows[:1], batch.indices[:1])
    found, metrics = flipping.train_step()(state, one)
    expected, wanted = plain.train_step()(plain.state, dataclasses.replace(one, stored=jnp.asarray(data)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found.params, expected.params)
    assert float(metrics["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-5)


@pytest.mark.slow
def test_each_datum_has_its_own_class_in_the_bound(batch, rng):
    """The loss is that of the batch's own rows' classes, also in the second update of one call."""
    config = tiny_config(**LABELLED)
    parts = parts_of(config, NUM_DATA)
    classes = jnp.asarray(rng.integers(0, 2, NUM_DATA), jnp.int32)
    model, params, sampler = parts.model, copied(parts.state.params), parts.sampler
    keys = step_keys(parts.state.root_key, 0)
    rows = batch.rows[0]
    draws, _ = sampler.advance(keys.draw, 0, (), model, params, batch.stored[rows])
    losses = [
        float(
            kaem.posterior_loss(keys.loss, model, params, batch.stored[rows], draws, objective="bound", labels=labels)[
                0
            ]
        )
        for labels in (classes[rows], 1 - classes[rows], None)
    ]
    log_class = model.prior.log_class_probabilities(params["prior"], draws.z)[0]
    own = np.take_along_axis(np.asarray(log_class), np.asarray(classes[rows])[:, None], axis=1)
    assert losses[2] - losses[0] == pytest.approx(float(own.mean()), rel=1e-3)  # log p(y | z), one draw
    assert abs(losses[0] - losses[1]) > 1e-2
    one = Batch(batch.stored, batch.rows[:1], batch.indices[:1], classes)
    _, metrics = parts.train_step()(parts.state, one)
    assert float(metrics["loss"]) == pytest.approx(losses[0], rel=1e-5)
    # As two calls of one update each.
    both = [Batch(batch.stored, batch.rows[i:j], batch.indices[i:j], classes) for i, j in ((0, 2), (0, 1), (1, 2))]
    at_once, apart = parts_of(config, NUM_DATA), parts_of(config, NUM_DATA)
    _, of_two = at_once.train_step()(at_once.state, both[0])
    state, _ = apart.train_step()(apart.state, both[1])
    _, of_second = apart.train_step()(state, both[2])
    assert float(of_two["loss"]) == pytest.approx(float(of_second["loss"]), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (LABELLED, ["data.labels=True", "has none"]),
        (LABELLED | {"prior__num_classes": 2}, ["prior.num_classes=2", "at least 3"]),
        (
            {"likelihood__kind": "discretized_logistic", "likelihood__levels": 256},
            ["likelihood.levels=256", "multiples of 1 / 255"],
        ),
    ],
)
def test_settings_that_do_not_fit_the_data(refuses, changes, parts):
    images = (np.arange(40 * 64).reshape(40, 8, 8) % 17 / 16).astype(np.float32)
    labels = None if "has none" in parts else (np.arange(40) % 3).__getitem__
    dataset = Dataset(images, images, labels, labels)
    config = tiny_config(**changes)
    with refuses(ConfigError, *parts):
        bind(config, dataset)


def test_labels_of_training_suffice_and_something_held_out_must_be_known(refuses, capsys):
    images = (np.arange(40 * 64).reshape(40, 8, 8) % 17 / 16).astype(np.float32)
    labels = (np.arange(40) % 3).__getitem__
    bind(
        tiny_config(**LABELLED | {"prior__num_clusters": 6, "prior__num_classes": 3}),
        Dataset(images, images, labels, None),
    )
    from_one = Dataset(images, images, (1 + np.arange(40) % 2).__getitem__, None)
    with refuses(ConfigError, "prior.num_classes=3", "no training datum has the label 0", "'learned'"):
        bind(tiny_config(**LABELLED | {"prior__num_clusters": 6, "prior__num_classes": 3}), from_one)
    learned = {"prior__num_clusters": 6, "prior__num_classes": 3, "prior__proportions": "learned"}
    bind(tiny_config(**LABELLED | learned), from_one)
    assert "no training datum has the label 0" in capsys.readouterr().err
    unknown = np.full_like(images, np.nan)
    with refuses(ConfigError, "held-out data", "only missing values"):
        bind(tiny_config(), Dataset(images, unknown))
    unknown[0, 0, 0] = 0.5
    bind(tiny_config(), Dataset(images, unknown))


def test_columns_of_one_number_are_refused(refuses):
    """Their density has no bound, and one held-out row with another number would spoil the mean of all."""
    rows = np.stack([np.arange(40.0), np.zeros(40)], axis=1).astype(np.float32)
    rows[3, 1] = np.nan
    form = Table((Column("a"), Column("flag", mean=7.0)))
    with refuses(ConfigError, "'flag' has one value only in the training rows, 7"):
        bind(tiny_config(), Dataset(rows, rows, form=form))
    bind(tiny_config(), Dataset(rows + np.arange(40)[:, None], rows, form=form))


def test_levels_are_known_in_float32():
    """k / 65535 in float32 times 65535 is off by 2e-3; a level between two is not."""
    images = (np.arange(64 * 64).reshape(64, 8, 8) * 15 / 65535).astype(np.float32)
    config = tiny_config(likelihood__kind="discretized_logistic", likelihood__levels=65536)
    bind(config, Dataset(images, images))
    with pytest.raises(ConfigError, match="multiples of 1 / 65535"):
        bind(config, Dataset(images, images + np.float32(0.3 / 65535)))


@pytest.mark.parametrize(
    ("changes", "shape", "parts"),
    [
        ({"data__flip": True}, (64,), ["data.flip=True", "(64,)"]),
        ({"data__transpose": True}, (64,), ["data.transpose=True", "square", "(64,)"]),
        ({"data__transpose": True}, (8, 6, 3), ["data.transpose=True", "square", "(8, 6, 3)"]),
    ],
)
def test_what_has_no_other_side_is_not_turned(changes, shape, parts, refuses):
    data = np.full((40, *shape), 0.5, np.float32)
    with refuses(ConfigError, *parts):
        bind(tiny_config(**changes), Dataset(data, data))
    square = np.full((40, 8, 8, 3), 0.5, np.float32)
    bind(tiny_config(**changes), Dataset(square, square))
