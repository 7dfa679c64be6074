"""Finding NaN and infinity on the device, and naming them on the host.

The counting runs inside the jitted step and costs one pass over the arrays; the host fetches one small integer vector.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


class NonFiniteError(SystemExit):
    """A NaN or an infinity that a run cannot go on from; the message is one line that names the step and the array.

    As a `SystemExit` it ends a program that does not catch it with that line on stderr and exit code 1: it is a result
    of the run, and a traceback of the training loop says nothing about its cause.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class FiniteReport:
    """How many entries of each array are NaN or infinite.

    Attributes:
        counts: non-finite entries of each array.
        names: `(kind, path)` of each array: what it is a part of ("gradient"), and where ("params.means").
        sizes: number of entries of each array.
    """

    counts: Int[Array, " leaves"]
    names: tuple[tuple[str, str], ...] = dataclasses.field(metadata=dict(static=True))
    sizes: tuple[int, ...] = dataclasses.field(metadata=dict(static=True))


def leaf_name(path: tuple[Any, ...]) -> str:
    """Dotted name of a leaf of a pytree, such as `params.means` or `moments.0.quaternions`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def finite_report(trees: Mapping[str, Any]) -> FiniteReport:
    """Counts the non-finite entries of every inexact array; call it inside the jitted step.

    Args:
        trees: kind ("gradient", "loss", "updated") to pytree; integer and boolean leaves are passed over.
    """
    names, sizes, counts = [], [], []
    for kind, tree in trees.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            leaf = jnp.asarray(leaf)
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                names.append((kind, leaf_name(path)))
                sizes.append(leaf.size)
                counts.append(jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32))
    stacked = jnp.stack(counts) if counts else jnp.zeros((0,), jnp.int32)
    return FiniteReport(counts=stacked, names=tuple(names), sizes=tuple(sizes))


def describe_non_finite(report: FiniteReport) -> str | None:
    """One line that names the first bad array and counts the others; None if all is finite.

    Waits until the report is computed.
    """
    counts = np.asarray(report.counts)
    bad = np.flatnonzero(counts)
    if bad.size == 0:
        return None
    first = int(bad[0])
    kind, path = report.names[first]
    others = f"; {bad.size - 1} more arrays are non-finite" if bad.size > 1 else ""
    place = f" in {path}" if path else ""
    return f"non-finite {kind}{place} ({counts[first]} of {report.sizes[first]} entries{others})"
