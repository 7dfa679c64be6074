"""Where the arrays of a data-parallel training lie: its state whole on every device, each batch split over them all."""

import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments import runtime
from experiments.errors import InputError

_TreeT = typing.TypeVar("_TreeT")


class Placement:
    """The devices of a training, those of other processes included; with a single one, arrays stay as they come.

    Args:
      batch: examples of a step.
      flag: that says how many.

    Attributes:
      mesh: all devices along one axis; None with a single one.

    Raises:
      InputError: the batch does not divide over the devices.
    """

    def __init__(self, batch: int, *, flag: str = "optimizer.batch") -> None:
        self.mesh = runtime.data_mesh() if jax.device_count() > 1 else None
        if self.mesh is not None and batch % self.mesh.size:
            raise InputError(f"--{flag}={batch} does not divide over {self.mesh.size} devices; choose a multiple")

    def everywhere(self, tree: _TreeT) -> _TreeT:
        """Arrays that every process holds, on every device."""
        return self._put(tree, PartitionSpec())

    def split(self, batch: _TreeT) -> _TreeT:
        """A batch that every process holds, each device with its rows."""
        return batch if self.mesh is None else self._put(batch, PartitionSpec(self.mesh.axis_names))

    def target(self, fresh: Callable[[], _TreeT]) -> _TreeT:
        """Shapes of a state, which `fresh` makes, and where it is to lie: what a checkpoint is restored to."""
        shapes = jax.eval_shape(fresh)
        if self.mesh is None:
            return shapes
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)

    def _put(self, tree, spec):
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, spec)

        def put(leaf):
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

        return jax.tree.map(put, tree)


def local(state: Any) -> Any:
    """A state as one device of this process has it; all devices hold the same."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), state)
