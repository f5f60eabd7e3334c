"""The audit's list fits the code as it is."""

import pytest

from tests.audit import ROOT, mistakes


def test_there_are_a_hundred_mistakes_from_every_room():
    assert len(mistakes()) >= 100


@pytest.mark.parametrize("mistake", mistakes(), ids=lambda mistake: f"{mistake.room}-{mistake.file}")
def test_a_mistake_can_be_made_and_its_tests_exist(mistake):
    assert (ROOT / "src" / "kaem_jax" / mistake.file).read_text().count(mistake.old) == 1
    assert mistake.new != mistake.old
    for test in mistake.tests.split():
        path, _, name = test.partition("::")
        assert (ROOT / path).exists()
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text() if name else True
