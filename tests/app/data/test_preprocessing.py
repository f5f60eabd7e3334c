"""What the model sees comes back in the user's units, and densities there integrate to 1."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.preprocessing import PowerTransformer

from kaem_jax.app.data import PIXELS, Field, Table, Text, form_from_dict
from kaem_jax.app.runs.export import use
from kaem_jax.app.runs.export.write import _scales
from kaem_jax.tables.column import Column, fitted_power, from_power, log_slope

POWERS = (0.0, 0.3, 1.0, 1.7, 2.0)
words = st.text(max_size=5)


def saved_and_read(form):
    return form_from_dict(json.loads(json.dumps(form.to_dict())))


@settings(max_examples=25)
@given(data=st.data(), transform=st.sampled_from(["standard", "power"]))
def test_tables_come_back(data, transform):
    """Numbers, categories and gaps."""
    cells = data.draw(st.lists(st.one_of(st.none(), st.floats(-1e4, 1e4, width=32)), min_size=1, max_size=8))
    known = np.array([cell for cell in cells if cell is not None] or [1.0])
    categories = tuple(data.draw(st.lists(words, min_size=2, max_size=4, unique=True)))
    kinds = [data.draw(st.one_of(st.none(), st.sampled_from(categories))) for _ in cells]
    bounds = data.draw(st.sampled_from([(None, None), (-2e4, None), (None, 2e4), (-2e4, 2e4)]))
    form = Table((Column.of_numbers("n", known, transform, *bounds), Column("k", categories)))
    x = form.encode({"k": kinds, "n": cells})
    assert (x.dtype, x.shape) == (np.float32, (len(cells), 1 + len(categories)))
    np.testing.assert_array_equal(np.isnan(x[:, :2]).T, [[cell is None for cell in of] for of in (cells, kinds)])
    again = form.decode(x)
    assert again["k"] == kinds
    error = 1e-5 * np.ptp(known) + 1e-5 * (np.abs(known).max() if bounds == (None, None) else 4e4)
    np.testing.assert_allclose(np.array(again["n"], float), np.array(cells, float), atol=error, rtol=1e-4)
    np.testing.assert_allclose(form.in_units(x)[:, 0], np.array(again["n"], float))
    np.testing.assert_array_equal(form.in_units(x)[:, 1:], x[:, 1:])
    assert saved_and_read(form) == form
    unseen = form.encode({"k": ["", *categories, "longer"]})
    assert np.isnan(unseen[:, 0]).all()  # a column that is not there is missing
    np.testing.assert_array_equal(np.isnan(unseen[:, 1]), ["" not in categories, *[False] * len(categories), True])


@settings(max_examples=25)
@given(st.lists(words, max_size=6), st.sampled_from(["character", "word"]), st.integers(2, 6))
def test_texts_come_back_and_end_where_they_do(texts, level, length):
    tokens = sorted({token for text in texts for token in Text(level, length, ()).tokens(text)})
    form = Text(level, length, tuple(tokens[: len(tokens) // 2]))
    values = form.encode(texts)
    assert (values.dtype, values.shape) == (np.int32, (len(texts), length))
    unknown, between = ("\N{REPLACEMENT CHARACTER}", "") if level == "character" else ("<unk>", " ")
    parts = [[token if token in form.vocabulary else unknown for token in form.tokens(text)] for text in texts]
    assert form.decode(values) == [between.join(part[:length]) for part in parts]
    assert saved_and_read(form) == form
    ended = Text("character", 5, ("a", "b", "é"))
    np.testing.assert_array_equal(ended.encode(["abé", "", "xaaaab"]), [[2, 3, 4, 0, 0], [0] * 5, [1, 2, 2, 2, 2]])
    assert ended.decode(np.array([[2, 0, 3, 3, 3]])) == ["a"]  # nothing after the first end


@pytest.mark.parametrize("shape", [(20, 4, 6, 2), (20, 5)])
def test_fields_are_standardised_and_come_back(rng, shape):
    fields = rng.normal(3, 2, shape) * (1 + np.arange(shape[-1]))
    form, channels = Field.of(fields), shape[-1] if len(shape) == 4 else 1
    x = form.encode(fields)
    assert (len(form.mean), saved_and_read(PIXELS)) == (channels, PIXELS)
    flat = x.reshape(-1, channels)
    np.testing.assert_allclose([flat.mean(axis=0), flat.std(axis=0)], [[0] * channels, [1] * channels], atol=1e-5)
    np.testing.assert_allclose(form.decode(x), fields, rtol=1e-4, atol=1e-4)
    assert saved_and_read(form) == form
    x[:, 0] = np.nan  # densities are those of the values that are known
    known = (~np.isnan(x[0])).reshape(-1, channels).sum(axis=0) @ np.log(fields.reshape(-1, channels).std(axis=0))
    np.testing.assert_allclose(form.log_volume(x), known, rtol=1e-6)


def test_what_is_constant_is_not_divided_by_rounding_errors():
    """The mean of 128 times 0.1 is not 0.1."""
    column = Column.of_numbers("c", np.full(128, 0.1), "power")
    assert (column.mean, column.scale, column.power, column.stretch) == (0.1, 1e-6, 1, 1)
    assert Field.of(np.full((128, 1, 1, 1), 0.1)).scale == (1.0,)
    assert Column.of_numbers("c", np.array([0.1] * 127 + [0.1 + 1e-9]), "standard").scale < 1e-9
    two = np.array([0.0] * 9 + [1.0])  # two values stay two under any power
    assert Column.of_numbers("is_open", two, "power") == Column.of_numbers("is_open", two, "standard")


@pytest.mark.parametrize("power", POWERS)
def test_scipys_powers_are_undone_and_densities_in_units_integrate_to_one(power, rng):
    """The model's values are N(0, 1): their density less log_volume is one of incomes."""
    x = np.concatenate([3 * rng.normal(size=50), [0.0, 1e-9, -1e-9, 40.0, -40.0]])
    np.testing.assert_allclose(from_power(stats.yeojohnson(x, power), power), x, rtol=1e-9, atol=1e-12)
    slope = (stats.yeojohnson(x + 1e-6, power) - stats.yeojohnson(x - 1e-6, power)) / 2e-6
    np.testing.assert_allclose(np.exp(log_slope(x, power)), slope, rtol=1e-6)
    table = Table((Column("income", (), 50.0, 20.0, power, 0.2, 0.7), Column("kind", ("a", "b"))))
    x = np.linspace(-10, 10, 200_001)
    model = np.stack([x, np.ones_like(x), np.zeros_like(x)], axis=1)
    density = np.exp(stats.norm.logpdf(x) - table.log_volume(model))
    assert np.trapezoid(density, table.in_units(model)[:, 0]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(table.log_volume(np.full((1, 3), np.nan)), 0)


def test_the_power_is_the_likeliest_one_that_loses_nothing(rng):
    x = stats.zscore(np.stack([rng.gamma(4.0, size=300), rng.normal(size=300), -rng.gamma(9.0, size=300)], axis=1))
    expected = PowerTransformer().fit(x).lambdas_
    assert np.all((expected > 0) & (expected < 2))
    np.testing.assert_allclose([fitted_power(column) for column in x.T], expected, atol=0.006)
    heavy = stats.zscore(np.exp(2 * rng.normal(size=300)))
    assert PowerTransformer().fit(heavy[:, None]).lambdas_[0] < -1  # of which values above a limit have no inverse
    assert (fitted_power(heavy), fitted_power(-heavy)) == (0, 2)
    raised = Column.of_numbers("c", 50 + 20 * heavy, "power").encode(50 + 20 * heavy)
    np.testing.assert_allclose([raised.mean(), raised.std()], [0, 1], atol=1e-5)
    assert abs(stats.skew(raised)) < abs(stats.skew(heavy)) / 2


def test_exported_draws_undo_the_powers_also_where_they_are_not_of_every_column(rng):
    raised = tuple(Column(str(power), (), 5.0, 2.0, power, 0.3, 1.4) for power in POWERS)
    table = Table((*raised, Column("kind", ("a", "b"))))
    x, data = 2 * rng.normal(size=(40, len(POWERS) + 2)), _scales(table)
    found = use.without_powers(x, data) * np.array(data["scale"]) + np.array(data["mean"])
    np.testing.assert_allclose(found, table.in_units(x), rtol=1e-9)
    np.testing.assert_array_equal(use.without_powers(x, {"mean": [0.0], "scale": [1.0]}), x)
