"""An experiment and its data: what only the data say, and what contradicts them."""

import numpy as np
import pytest

from kaem_jax.app.data import Table
from kaem_jax.app.data.dataset import Dataset
from kaem_jax.app.experiment.bind import bind
from kaem_jax.errors import ConfigError
from kaem_jax.tables.column import Column
from tests.app.tiny import tiny_config

LABELLED = {
    "posterior__kind": "variational", "posterior__encoder__hidden": (16,), "evaluation__proposal": "encoder",
    "prior__kind": "clustered", "prior__num_clusters": 6, "data__labels": True,
}  # fmt: skip
LOGISTIC = {"likelihood__kind": "discretized_logistic"}
IMAGES = (np.arange(40 * 64).reshape(40, 8, 8) % 17 / 16).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "shape", "parts"),
    [
        (LABELLED | {"prior__num_classes": 3}, (8, 8), ["data.labels=True", "has none"]),
        (LOGISTIC | {"likelihood__levels": 256}, (8, 8), ["likelihood.levels=256", "multiples of 1 / 255"]),
        ({"data__transpose": True}, (64,), ["data.transpose=True", "square", "(64,)"]),
        ({"data__transpose": True}, (8, 4, 2), ["data.transpose=True", "square", "(8, 4, 2)"]),
    ],
)
def test_settings_that_do_not_fit_the_data(refuses, changes, shape, parts):
    images = IMAGES.reshape(40, *shape)
    with refuses(ConfigError, *parts):
        bind(tiny_config(**changes), Dataset(images, images))
    if "data__transpose" in changes:
        square = IMAGES.reshape(40, 4, 4, 4)
        bind(tiny_config(**changes), Dataset(square, square))


def test_labels_are_those_of_training_and_the_classes_of_the_prior(refuses, capsys):
    labelled = tiny_config(**LABELLED, prior__num_classes=3)
    bind(labelled, Dataset(IMAGES, IMAGES, (np.arange(40) % 3).__getitem__, None))
    with refuses(ConfigError, "prior.num_classes=3", "at least 4"):
        bind(labelled, Dataset(IMAGES, IMAGES, (np.arange(40) % 4).__getitem__, None))
    from_one = Dataset(IMAGES, IMAGES, (1 + np.arange(40) % 2).__getitem__, None)
    with refuses(ConfigError, "prior.num_classes=3", "no training datum has the label 0", "'learned'"):
        bind(labelled, from_one)
    bind(tiny_config(**LABELLED, prior__num_classes=3, prior__proportions="learned"), from_one)
    assert "no training datum has the label 0" in capsys.readouterr().err


def test_columns_of_one_number_are_refused_and_others_have_their_sizes(refuses):
    """A density of one number has no bound, and one held-out row with another one would spoil the mean of all."""
    rows = np.stack([np.arange(40.0), np.zeros(40)], axis=1).astype(np.float32)
    rows[3, 1] = np.nan
    form = Table((Column("a"), Column("flag", mean=7.0)))
    columns = {"data__name": "wine", "likelihood__kind": "columns", "decoder__output": "identity"}
    with refuses(ConfigError, "'flag' has one value only in the training rows, 7"):
        bind(tiny_config(**columns), Dataset(rows, rows, form=form))
    good = Dataset(rows + np.arange(40)[:, None], rows, form=form)
    assert bind(tiny_config(**columns), good).likelihood.sizes == (1, 1)


def test_levels_are_known_in_float32(refuses):
    """k / 65535 in float32 times 65535 is off by 2e-3; a level between two is not."""
    images = (np.arange(64 * 64).reshape(64, 8, 8) * 15 / 65535).astype(np.float32)
    config = tiny_config(**LOGISTIC, likelihood__levels=65536)
    bind(config, Dataset(images, images))
    with refuses(ConfigError, "multiples of 1 / 65535"):
        bind(config, Dataset(images, images + np.float32(0.3 / 65535)))
