"""Powers of skewed columns: against scipy and scikit-learn, and p(x) in the user's units, which integrates to 1."""

import json
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import PowerTransformer

from kaem_jax.cli.impute import _filled
from kaem_jax.data import Table, form_from_dict, load_dataset, write_table
from kaem_jax.data.columns import Column
from kaem_jax.data.power import fitted_power, from_power, log_slope
from kaem_jax.runs.export import use
from kaem_jax.runs.export.write import _scales
from kaem_jax.data.settings import DataSettings

POWERS = (0.0, 0.3, 1.0, 1.7, 2.0)


@pytest.mark.parametrize("power", POWERS)
def test_scipys_powers_are_undone_and_have_this_slope(power, rng):
    x = np.concatenate([3 * rng.normal(size=50), [0.0, 1e-9, -1e-9, 40.0, -40.0]])
    np.testing.assert_allclose(from_power(stats.yeojohnson(x, power), power), x, rtol=1e-9, atol=1e-12)
    step = 1e-6
    slope = (stats.yeojohnson(x + step, power) - stats.yeojohnson(x - step, power)) / (2 * step)
    np.testing.assert_allclose(np.exp(log_slope(x, power)), slope, rtol=1e-6)


def test_the_power_is_the_likeliest_one_that_loses_nothing(rng):
    x = np.stack([rng.gamma(4.0, size=300), rng.normal(size=300), -rng.gamma(9.0, size=300)], axis=1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = PowerTransformer().fit(x).lambdas_
    assert np.all((expected > 0) & (expected < 2))
    np.testing.assert_allclose([fitted_power(column) for column in x.T], expected, atol=0.006)
    heavy = np.exp(2 * rng.normal(size=300))
    heavy = (heavy - heavy.mean()) / heavy.std()
    assert PowerTransformer().fit(heavy[:, None]).lambdas_[0] < -1  # of which values above a limit have no inverse
    assert fitted_power(heavy) == 0
    assert fitted_power(-heavy) == 2


@pytest.fixture
def skewed(tmp_path, rng):
    """A table of a skewed column, a constant one and a category, with an empty cell."""
    income = np.exp(rng.normal(3, 0.8, 200)).round(3).tolist()
    columns = {"income": [None, *income[1:]], "one": [7.0] * 200, "kind": ["a", "b"] * 100}
    write_table(tmp_path / "t.csv", columns)
    return {
        transform: load_dataset(DataSettings(name="table", path=str(tmp_path / "t.csv"), transform=transform))
        for transform in ("standard", "power")
    }


def test_columns_are_raised_to_powers_and_come_back(skewed):
    train = np.asarray(skewed["power"].train)
    numbers = train[np.isfinite(train[:, 0]), 0].astype(float)
    assert abs(numbers.mean()) < 1e-6
    assert numbers.std() == pytest.approx(1, rel=1e-5)
    assert abs(stats.skew(numbers)) < 0.5
    raw = np.asarray(skewed["standard"].train)
    assert stats.skew(raw[np.isfinite(raw[:, 0]), 0]) > 1.5
    forms = {name: data.form for name, data in skewed.items()}
    again, expected = forms["power"].decode(train), forms["standard"].decode(raw)
    assert (again["one"], again["kind"]) == (expected["one"], expected["kind"])
    for found, value in zip(again["income"], expected["income"], strict=True):
        assert found is value is None or found == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(forms["power"].in_units(train)[:, 0], np.array(expected["income"], float), rtol=1e-4)
    np.testing.assert_array_equal(forms["power"].in_units(train)[:, 2:], train[:, 2:])
    encoded = forms["power"].encode(expected)
    np.testing.assert_allclose(encoded, train, atol=1e-4)
    saved = json.loads(json.dumps(forms["power"].to_dict()))
    assert form_from_dict(saved) == forms["power"]
    for column in saved["columns"]:  # as runs wrote them before there were powers
        del column["power"], column["shift"], column["stretch"]
    restored = form_from_dict(saved)
    assert isinstance(restored, Table)
    assert restored == forms["standard"]


@pytest.mark.parametrize("power", POWERS)
def test_densities_in_units_integrate_to_one(power):
    """The model's values are N(0, 1): their density less log_volume is one of incomes."""
    table = Table((Column("income", (), 50.0, 20.0, power, 0.2, 0.7), Column("kind", ("a", "b"))))
    x = np.linspace(-10, 10, 200_001)
    model = np.stack([x, np.ones_like(x), np.zeros_like(x)], axis=1)
    incomes = table.in_units(model)[:, 0]
    density = np.exp(stats.norm.logpdf(x) - table.log_volume(model))
    assert np.trapezoid(density, incomes) == pytest.approx(1, abs=1e-5)
    missing = np.array([[np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(table.log_volume(missing), 0)


def test_two_numbers_are_no_reason_for_a_power():
    """Two values stay two under any power, and only their density in units would change."""
    numbers = np.array([0.0] * 9 + [1.0])
    assert Column.of_numbers("is_open", numbers, "power") == Column.of_numbers("is_open", numbers, "standard")


def test_means_of_imputations_are_taken_in_units():
    """Of two draws, 0 and 2, of a logarithm: the mean of their incomes, not the income of their mean."""
    logarithm = Column("income", (), 0.0, 1.0, 0.0, 0.0, 1.0)
    table = Table((logarithm, Column("age", (), 10.0, 3.0)))
    draws = np.array([[[0.0, -1.0], [2.0, 1.0]], [[1.0, 0.5], [1.0, 0.5]]])  # [N, S, D]
    mean = np.array([[1.0, 0.1], [1.0, 0.5]])
    missing = np.array([[True, True], [False, False]])
    filled = _filled(table, draws, mean, {}, missing)
    incomes = np.expm1([0.0, 2.0])
    assert filled["income"] == pytest.approx([incomes.mean(), np.expm1(1.0)])
    assert filled["income_spread"] == pytest.approx([incomes.std(ddof=1), 0])
    assert filled["age"] == pytest.approx([10.3, 11.5])  # the model's own mean
    assert filled["age_spread"] == pytest.approx([3.0 * 2**0.5, 0])


def test_exported_draws_undo_the_powers(rng):
    table = Table(tuple(Column(str(power), (), 5.0, 2.0, power, 0.3, 1.4) for power in POWERS))
    x = 2 * rng.normal(size=(40, len(POWERS)))
    data = _scales(table)
    plain = {name: [0.0] if name == "mean" else [1.0] for name in ("mean", "scale")}
    np.testing.assert_array_equal(use.without_powers(x, plain), x)
    found = use.without_powers(x, data) * np.array(data["scale"]) + np.array(data["mean"])
    np.testing.assert_allclose(found, table.in_units(x), rtol=1e-9)
    # A table is exported with its powers also where they are not of every column.
    some = Table((Column("plain"), Column("raised", (), 5.0, 2.0, 0.5, 0.3, 1.4), Column("kind", ("a", "b"))))
    assert _scales(some)["power"] == [1.0, 0.5, 1.0, 1.0]


def test_an_exported_table_is_drawn_in_its_units(tmp_path, monkeypatch, rng):
    """By the program beside an export, whose functions are stood in for here."""
    table = Table(tuple(Column(str(power), (), 5.0, 2.0, power, 0.3, 1.4) for power in POWERS))
    x = rng.normal(size=(7, len(POWERS))).astype(np.float32)
    drawn = lambda key, rows: {"x": x[: len(rows)], "z": x[: len(rows), :1]}  # noqa: E731
    monkeypatch.setattr(use, "load", {"draws": drawn}.__getitem__)
    monkeypatch.setattr(use, "read_manifest", lambda: {"data": _scales(table), "step": 3})
    monkeypatch.setattr(use, "check_digests", lambda manifest: None)
    monkeypatch.setattr(sys, "argv", ["use.py", "--num", "7", "--out", str(tmp_path / "drawn.npz")])
    use.main()
    np.testing.assert_allclose(np.load(tmp_path / "drawn.npz")["x"], table.in_units(x), rtol=1e-5)
