"""A state is whole on every device, a batch is split over them: what each of them holds, and that nothing is lost."""

import jax
import numpy as np
import pytest

from experiments.errors import InputError
from experiments.placement import Placement, local

_TREE = {"rows": np.arange(24.0, dtype=np.float32).reshape(8, 3), "bytes": np.arange(8, dtype=np.uint8)}


def test_every_device_has_the_state_and_its_own_rows_of_the_batch():
    placement = Placement(8)
    state, batch = placement.everywhere(_TREE), placement.split(_TREE)
    for name, array in _TREE.items():
        np.testing.assert_array_equal(batch[name], array)
        assert len(state[name].addressable_shards) == len(batch[name].addressable_shards) == jax.device_count() == 4
        for shard in state[name].addressable_shards:
            np.testing.assert_array_equal(shard.data, array)
        for number, shard in enumerate(batch[name].addressable_shards):
            np.testing.assert_array_equal(shard.data, array[2 * number : 2 * number + 2])
        np.testing.assert_array_equal(local(state)[name], array)
        assert len(local(state)[name].sharding.device_set) == 1


def test_a_state_is_restored_to_where_it_lay():
    placement = Placement(4)
    target = placement.target(lambda: jax.tree.map(jax.numpy.asarray, _TREE))
    for wanted, leaf in zip(jax.tree.leaves(placement.everywhere(_TREE)), jax.tree.leaves(target), strict=True):
        assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)
        assert leaf.sharding.is_equivalent_to(wanted.sharding, wanted.ndim)


def test_a_batch_has_to_divide_over_the_devices():
    with pytest.raises(InputError, match="--batch=6 does not divide over 4 devices"):
        Placement(6, flag="batch")


def test_with_one_device_arrays_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    placement = Placement(3)
    assert placement.mesh is None and placement.everywhere(_TREE) is _TREE and placement.split(_TREE) is _TREE
    assert all(leaf.sharding is None for leaf in jax.tree.leaves(placement.target(lambda: jax.numpy.zeros(2))))
