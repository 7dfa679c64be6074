import dataclasses

import pytest

from experiments import cadence


def test_due_counts_every_nth_step_and_never_zero():
    assert [step for step in range(13) if cadence.due(4, step)] == [4, 8, 12]
    assert not any(cadence.due(0, step) for step in range(13))
    for every in range(1, 7):
        assert sum(cadence.due(every, step) for step in range(100)) == 99 // every


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(cadence.Cadence)])
def test_out_of_range_is_named(name):
    with pytest.raises(ValueError, match=name):
        cadence.Cadence(**{name: -1})


def test_agreement_is_never_off():
    with pytest.raises(ValueError, match="agree_every must be 1 or more"):
        cadence.Cadence(agree_every=0)
