"""The record checker must see wrong ranks, dtypes and sizes that do not agree between fields."""

import dataclasses

import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float, Int

from tests.helpers.records import assert_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inner:
    ids: Int[Array, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Points:
    positions: Float[Array, "n 3"]
    sizes: Float[Array, " n"] | None
    shape: tuple[int, int]
    inner: _Inner


GOOD = dict(positions=jnp.zeros((5, 3)), sizes=jnp.zeros(5), shape=(2, 3), inner=_Inner(ids=jnp.zeros(7, int)))


def test_agreeing_records_pass():
    assert_record(_Points(**GOOD))
    assert_record(_Points(**GOOD | dict(sizes=None)))


@pytest.mark.parametrize(
    "change",
    [
        dict(positions=jnp.zeros((5, 2))),
        dict(positions=jnp.zeros((5, 3), int)),
        dict(sizes=jnp.zeros(4)),
        dict(shape=(2, 3, 4)),
        dict(inner=_Inner(ids=jnp.zeros(7))),
    ],
)
def test_disagreeing_records_are_named(change):
    name = "ids" if "inner" in change else ("sizes" if "sizes" in change else next(iter(change)))
    with pytest.raises(AssertionError, match=name):
        assert_record(_Points(**GOOD | change))
