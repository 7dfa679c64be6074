"""Continuous remeshing: a mesh that follows the gradient of a loss, and whose triangles are renewed as it moves.

Palfinger 2022, "Continuous remeshing for inverse rendering" (constants of Direct2.5, arXiv:2311.15980). A vertex has an
Adam of its own with one step size for its three coordinates, and an edge length of its own, in whose units it moves:
where the relative speed is high the edges grow, where the vertices have settled they shrink. After each step long edges
are split, short ones collapse, others are flipped towards six a vertex.

Arrays have room for a power of two of faces, so that compiled programs serve many sizes. Spare vertices lie on the
first one and spare faces are all of it, hence without area.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from renderers.meshes.edge_operations import collapse_short_edges, flip_edges, split_long_edges
from renderers.meshes.edge_tables import NONE, edge_table, face_by_half_edge, opposite_by_half_edge

_SMALLEST_CAPACITY = 4096  # faces: below it there is nothing to gain from another compiled program
_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemeshingRates:
    """Constants of continuous remeshing; lengths in world units.

    Attributes:
      rate: step size in units of the vertex's edge length.
      ramp: steps over which the step size grows to its full value, in units of the momentum's memory.
      momentum: decay of the mean gradient.
      variance: decay of the mean squared gradient.
      shortest, longest: limits of the edge length; vertices start at the longest.
      gain: growth of the edge length by relative speed.
      speed: relative speed at which the edge length stays.
      smoothing: pull to the mean of the neighbours, as a share of the gradient, times the relative speed.
      gradient_limit: largest component of a gradient, in multiples of its mean.
      tolerance: an edge is split above `1 + tolerance` and collapses below `1 - tolerance` times its wanted length.
      max_faces: nothing is split where that many could be exceeded.
    """

    rate: float = 0.3
    ramp: float = 1.0
    momentum: float = 0.8
    variance: float = 0.8
    shortest: float = 0.01
    longest: float = 0.15
    gain: float = 0.2
    speed: float = 0.3
    smoothing: float = 0.2
    gradient_limit: float = 10.0
    tolerance: float = 0.5
    max_faces: int = 200_000


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class RemeshingState:
    """A mesh at fixed capacity and the memory of its vertices.

    Attributes:
      vertices: world positions.
      faces: vertex indices.
      opposite: vertex across each edge, -1 at borders (`connectivity.opposite_vertices`).
      neighbors: face across each edge, -1 at borders.
      features: what else vertices carry, colours for instance; averaged in splits and collapses, not moved.
      momentum: mean gradient.
      variance: mean squared length of the gradient.
      speed: relative speed of the last step, in [0, about 1].
      lengths: wanted edge length.
      num_vertices, num_faces: how many of the rows are in use.
      updates: steps taken.
    """

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    opposite: Int[Array, "f 3"]
    neighbors: Int[Array, "f 3"]
    features: Float[Array, "v k"]
    momentum: Float[Array, "v 3"]
    variance: Float[Array, " v"]
    speed: Float[Array, " v"]
    lengths: Float[Array, " v"]
    num_vertices: Int[Array, ""]
    num_faces: Int[Array, ""]
    updates: Int[Array, ""]


def start_remeshing(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    rates: RemeshingRates,
    *,
    num_features: int = 0,
) -> RemeshingState:
    """State at rest on a mesh; features start at one half. Runs on the host.

    Raises:
      ValueError: no faces, or an index out of range.
    """
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
    if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"remeshing needs faces with indices 0 .. {len(vertices) - 1}, got {len(faces)} faces")
    rows = np.zeros((len(vertices), 9 + num_features), np.float32)
    rows[:, :3], rows[:, 8], rows[:, 9:] = vertices, rates.longest, 0.5
    return _packed(rows, faces, np.int32(0))


def remeshing_capacity(num_vertices: int, num_faces: int) -> int:
    """Rows for faces of a state that holds so many; half as many are there for vertices."""
    return max(_SMALLEST_CAPACITY, 1 << (max(num_faces, 2 * num_vertices) - 1).bit_length())


def empty_state(capacity: int, num_features: int = 0) -> RemeshingState:
    """Zeros in the shape of a state of a capacity: what a checkpoint is read into."""

    def rows(*shape, dtype=jnp.float32):
        return jnp.zeros(shape, dtype)

    half, index = capacity // 2, jnp.int32
    return RemeshingState(
        vertices=rows(half, 3),
        faces=rows(capacity, 3, dtype=index),
        opposite=rows(capacity, 3, dtype=index),
        neighbors=rows(capacity, 3, dtype=index),
        features=rows(half, num_features),
        momentum=rows(half, 3),
        variance=rows(half),
        speed=rows(half),
        lengths=rows(half),
        num_vertices=rows(dtype=index),
        num_faces=rows(dtype=index),
        updates=rows(dtype=index),
    )


def current_mesh(state: RemeshingState) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices and faces without the spare rows. Runs on the host."""
    return (
        np.asarray(state.vertices)[: int(state.num_vertices)],
        np.asarray(state.faces)[: int(state.num_faces)],
    )


def faces_in_use(state: RemeshingState) -> Float[Array, " f"]:
    """1 for the rows of `faces` that are in use, 0 for spare ones."""
    return (jnp.arange(state.faces.shape[0]) < state.num_faces).astype(state.vertices.dtype)


def pairs_of_faces(state: RemeshingState) -> tuple[Int[Array, "p 2"], Float[Array, " p"]]:
    """Faces on both sides of every half-edge, and 1 where there are two: rows for `losses.face_normal_consistency`."""
    own = jnp.repeat(jnp.arange(state.faces.shape[0]), 3)
    other = state.neighbors.reshape(-1)
    return jnp.stack([own, jnp.maximum(other, 0)], axis=1), (other >= 0).astype(state.vertices.dtype)


def descend(
    state: RemeshingState,
    gradient: Float[Array, "v 3"],
    rates: RemeshingRates,
    *,
    shortest: Float[Array, ""] | float | None = None,
    pace: Float[Array, ""] | float = 1.0,
) -> RemeshingState:
    """One step against a gradient; the connectivity stays. For use inside jit.

    Args:
      state: where the mesh is.
      gradient: of the loss with respect to `state.vertices`; any scale, save that smoothing is measured against it.
      rates: constants.
      shortest: lower limit of the edge length in this step, instead of the rates': for going from coarse to fine.
      pace: factor of the step size, for slowing down towards the end.
    """
    shortest = rates.shortest if shortest is None else shortest
    updates = state.updates + 1
    time = updates.astype(state.vertices.dtype)
    away = state.vertices - _mean_of_neighbors(state)
    gradient = gradient + rates.smoothing * state.speed[:, None] * away
    bound = rates.gradient_limit * jnp.abs(state.momentum) / _remembered(rates.momentum, time - 1)
    gradient = jnp.where(updates > 1, jnp.clip(gradient, -bound, bound), gradient)
    momentum = rates.momentum * state.momentum + (1 - rates.momentum) * gradient
    squared = jnp.sum(gradient * gradient, axis=-1)
    variance = rates.variance * state.variance + (1 - rates.variance) * squared
    deviation = jnp.sqrt(variance / _remembered(rates.variance, time))
    velocity = momentum / _remembered(rates.momentum, time) / (deviation[:, None] + _EPSILON)
    speed = jnp.sqrt(jnp.sum(velocity * velocity, axis=-1))
    ramp = pace * jnp.minimum(1.0, time * (1 - rates.momentum) / rates.ramp)
    vertices = state.vertices - rates.rate * ramp * state.lengths[:, None] * velocity
    lengths = jnp.clip(state.lengths * (1 + rates.gain * (speed - rates.speed)), shortest, rates.longest)
    used = jnp.arange(vertices.shape[0]) < state.num_vertices
    return dataclasses.replace(
        state,
        vertices=jnp.where(used[:, None], vertices, vertices[:1]),
        momentum=jnp.where(used[:, None], momentum, 0.0),
        variance=jnp.where(used, variance, 0.0),
        speed=jnp.where(used, speed, 0.0),
        lengths=jnp.where(used, lengths, rates.longest),
        updates=updates,
    )


def remesh(state: RemeshingState, rates: RemeshingRates) -> RemeshingState:
    """Collapses, splits and flips edges towards the wanted lengths. Runs on the host.

    New and merged vertices get the mean of what their parents remember. Capacity grows and shrinks with the mesh.
    """
    vertices, faces = current_mesh(state)
    used = len(vertices)
    memory = (state.momentum, state.variance[:, None], state.speed[:, None], state.lengths[:, None], state.features)
    rows = np.concatenate([vertices, *(np.asarray(part)[:used] for part in memory)], axis=1)
    rows, faces = collapse_short_edges(rows, faces, (1 - rates.tolerance) * rows[:, 8])
    finer = split_long_edges(rows, faces, (1 + rates.tolerance) * rows[:, 8])
    if len(finer[1]) <= rates.max_faces:
        rows, faces = finer
    faces = flip_edges(rows[:, :3], faces)
    return _packed(rows, faces, np.asarray(state.updates))


def _packed(rows, faces, updates) -> RemeshingState:
    """Rows of position, momentum, variance, speed, length and features as a state with spare room."""
    capacity = remeshing_capacity(len(rows), len(faces))
    spare = np.repeat(rows[:1], capacity // 2 - len(rows), axis=0)
    spare[:, 3:8] = 0.0
    table_of_edges = edge_table(faces, len(rows))
    opposite = opposite_by_half_edge(faces, table_of_edges)
    across = face_by_half_edge(faces, table_of_edges)
    table = np.concatenate([rows, spare])

    def filled(indices, value):
        return jnp.asarray(np.concatenate([indices, np.full((capacity - len(faces), 3), value)]).astype(np.int32))

    return RemeshingState(
        vertices=jnp.asarray(table[:, :3]),
        faces=filled(faces, 0),
        opposite=filled(opposite, NONE),
        neighbors=filled(across, NONE),
        features=jnp.asarray(table[:, 9:]),
        momentum=jnp.asarray(table[:, 3:6]),
        variance=jnp.asarray(table[:, 6]),
        speed=jnp.asarray(table[:, 7]),
        lengths=jnp.asarray(table[:, 8]),
        num_vertices=jnp.asarray(len(rows), jnp.int32),
        num_faces=jnp.asarray(len(faces), jnp.int32),
        updates=jnp.asarray(updates, jnp.int32),
    )


def _mean_of_neighbors(state):
    """Mean position of the neighbours: exact in closed meshes, where each edge has a face on either side.

    At a border the neighbours along it count half. A vertex without a face is its own neighbour.
    """
    heads = jnp.roll(state.faces, -1, axis=1)
    weight = faces_in_use(state)[:, None, None]
    table = jnp.concatenate([state.vertices, jnp.ones_like(state.vertices[:, :1])], axis=1)
    sums = jnp.zeros_like(table)
    for tails, others in ((state.faces, heads), (heads, state.faces)):
        sums = sums.at[tails.reshape(-1)].add((weight * table[others]).reshape(-1, table.shape[1]))
    count = sums[:, 3:]
    return jnp.where(count > 0, sums[:, :3] / jnp.where(count > 0, count, 1.0), state.vertices)


def _remembered(decay, time):
    """What the weights of an exponential mean add up to after so many steps."""
    return jnp.maximum(1.0 - decay**time, _EPSILON)
