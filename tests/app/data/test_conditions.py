"""Conditions on cells as bounds of what a model sees."""

import numpy as np
import pytest

from kaem_jax.app.data.conditions import bounds_of
from kaem_jax.app.data.forms import Table
from kaem_jax.tables.column import Column

INF = np.inf
# The second column of numbers lies above 0, so that the model sees its logarithm.
FORM = Table(
    (Column("age", mean=50.0, scale=10.0), Column("sex", ("F", "M")), Column("dose", scale=2.0, low=0.0),
     Column("colour", ("blue", "dark red", "green")))
)  # fmt: skip
FREE = [-INF, 0, 0, -INF, 0, 0, 0], [INF, 1, 1, INF, 1, 1, 1]


def changed(low=(), high=()):
    bounds = np.array(FREE)
    for row, changes in zip(bounds, (low, high), strict=True):
        for i, value in changes:
            row[i] = value
    return bounds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age>60", changed(low=[(0, 1.0)])),
        ("age>=60, age <= 70", changed(low=[(0, 1.0)], high=[(0, 2.0)])),
        ("age>40,age>60,age<90,age<70", changed(low=[(0, 1.0)], high=[(0, 2.0)])),
        ("age = 35", changed(low=[(0, -1.5)], high=[(0, -1.5)])),
        ("dose<2", changed(high=[(3, np.log(2) / 2)])),
        ("sex=F", changed(high=[(2, 0)])),
        ("sex!=F", changed(high=[(1, 0)])),
        ("colour=dark red|green", changed(high=[(4, 0)])),
        ("colour!=blue, colour != green", changed(high=[(4, 0), (6, 0)])),
        ("sex=M, age<50", changed(high=[(1, 0), (0, 0)])),
    ],
    ids=str,
)
def test_bounds_of_conditions(text, expected):
    np.testing.assert_allclose(bounds_of(FORM, text), expected, rtol=1e-6, atol=1e-30)


def test_a_bound_belongs_where_its_sign_says_so():
    """A known cell is compared with the bound that it would have; a draw at the bound is still inside."""
    at = FORM.columns[0].encode([63.7])[0, 0]
    (above, below), (least, most) = (
        (bounds_of(FORM, f"age>{sign}63.7")[0][0], bounds_of(FORM, f"age<{sign}63.7")[1][0]) for sign in ("", "=")
    )
    assert below < least == at == most < above
    assert FORM.columns[0].in_units(np.array([below, above])).tolist() == pytest.approx([63.7] * 2)
    assert FORM.columns[0].in_units(below) < 63.7 < FORM.columns[0].in_units(above)


def test_what_no_row_meets_and_nobody_understands_is_refused(refuses):
    cases = {
        "age": "'age' is no condition such as age>30",
        "": "'' is no condition",
        "height>2": "there is no column 'height'; columns are age, sex, dose, colour",
        "age>young": "age>young must compare a number",
        "age!=3": "age!=3 must compare a number",
        "age>nan": "age>nan must compare a number",
        "sex>F": "sex>F must be sex= or sex!= and some of F, M",
        "sex=X": "sex=X must be",
        "age>60, age<50": "no row meets all conditions on 'age'",
        "sex=F, sex=M": "no row meets all conditions on 'sex'",
    }
    refuses.each(*((lambda text=text: bounds_of(FORM, text), (said,)) for text, said in cases.items()))
