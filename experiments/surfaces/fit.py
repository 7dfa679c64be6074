"""The fit of a mesh to images of many views, without flags or files: what `fit_mesh` and the text-to-3D route share.

Targets are encoded images of one size: normals in the world's frame as (n + 1) / 2 and colours, both black where the
mask is 0, depths, all with the antialiased mask. The loss is L1 on all of them and 1 - cos of adjacent faces, the
descent that of continuous remeshing (`renderers.meshes.remeshing`), with the connectivity renewed on the host after
each step. Towards the end steps shrink, so that the noise of views that take turns dies away.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from experiments import finite
from renderers.cameras.camera import Camera
from renderers.meshes.losses import face_normal_consistency
from renderers.meshes.mesh import Mesh, vertex_normals
from renderers.meshes.rasterize import MeshRendering, interpolate, rasterize_mesh
from renderers.meshes.remeshing import (
    RemeshingRates,
    RemeshingState,
    current_mesh,
    descend,
    pairs_of_faces,
    remesh,
    start_remeshing,
)
from renderers.meshes.silhouettes import antialias
from renderers.meshes.textures import linear_from_srgb

_SLOWING, _SLOWEST = 0.6, 0.05
_COLOR_STEP = 0.5  # of the way to what the views of a step say of a vertex's colour


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class ViewTargets:
    """What several views of one size show, stacked; parts that are not known have no channels.

    Attributes:
      masks: UInt8, 255 where the object is.
      normals: UInt8, world frame, (n + 1) / 2, times mask; "v h w 3" or "v h w 0".
      colors: UInt8, display-referred, times mask; "v h w 3" or "v h w 0".
      depths: Float, camera z in world units, 0 where not known; "v h w 1" or "v h w 0".
      cameras: with stacked poses and intrinsics.
    """

    masks: UInt8[Array, "v h w"]
    normals: UInt8[Array, "v h w n"]
    colors: UInt8[Array, "v h w c"]
    depths: Float[Array, "v h w d"]
    cameras: Camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms of the loss: L1 of masks, normals, colours and depths, 1 - cos between adjacent faces."""

    mask: float = 1.0
    normal: float = 1.0
    color: float = 1.0
    depth: float = 1.0
    consistency: float = 0.1


def render_values(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    opposite: Int[Array, "f 3"],
    values: Float[Array, "v k"],
    camera: Camera,
) -> tuple[MeshRendering, Float[Array, "h w"], Float[Array, "h w k"]]:
    """Rendering, antialiased mask, and values of vertices: black around the mesh, blended along its outlines."""
    rendering = rasterize_mesh(vertices, faces, camera, attributes=values, antialias=False)
    return rendering, *antialias(rendering.attributes, rendering, vertices, faces, camera, opposite=opposite)


@jax.jit
def shape_image(
    vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], opposite: Int[Array, "f 3"], camera: Camera
) -> tuple[Float[Array, "h w"], Float[Array, "h w 3"]]:
    """Mask and encoded vertex normals of a mesh: the targets that it would be."""
    encoded = (vertex_normals(vertices, faces) + 1) / 2
    _, mask, image = render_values(vertices, faces, opposite, encoded, camera)
    return mask, image


@functools.partial(jax.jit, static_argnames=("rates", "weights"), donate_argnums=0)
def update(
    state: RemeshingState,
    targets: ViewTargets,
    fraction: Float[Array, ""],
    *,
    rates: RemeshingRates,
    weights: LossWeights,
) -> tuple[RemeshingState, dict[str, Array], finite.FiniteReport]:
    """One step at fixed connectivity: gradient of the mean loss over the views, then `remeshing.descend`.

    Args:
      state: donated; its features are the vertex colours if the targets have colours.
      targets: the views of this step.
      fraction: of the run that is over, in [0, 1]; sets the least edge length.
      rates: of the descent.
      weights: of the loss.
    """
    with_normals, with_colors = targets.normals.shape[-1] > 0, targets.colors.shape[-1] > 0

    def values_of(vertices, colors):
        parts = [(vertex_normals(vertices, state.faces) + 1) / 2] if with_normals else []
        return jnp.concatenate([*parts, colors], axis=1) if with_colors or parts else jnp.zeros((len(vertices), 0))

    def view_loss(vertices, values, view):
        rendering, mask, image = render_values(vertices, state.faces, state.opposite, values, view.cameras)
        wanted = jnp.concatenate([view.normals, view.colors], axis=-1) / 255.0
        errors = jnp.abs(image - wanted)
        split = 3 if with_normals else 0
        terms = {"mask": jnp.mean(jnp.abs(mask - view.masks / 255.0))}
        if with_normals:
            terms["normal"] = jnp.mean(errors[..., :split])
        if with_colors:
            terms["color"] = jnp.mean(errors[..., split:])
        if view.depths.shape[-1]:
            known = (view.depths[..., 0] > 0) & (rendering.face_index >= 0) & (view.masks == 255)
            terms["depth"] = jnp.mean(jnp.where(known, jnp.abs(rendering.depth - view.depths[..., 0]), 0.0))
        asked = _color_sums(state, rendering, (wanted - image)[..., split:]) if with_colors else jnp.zeros(())
        return sum(getattr(weights, name) * term for name, term in terms.items()), (terms, lax.stop_gradient(asked))

    values, pull_back = jax.vjp(values_of, state.vertices, state.features)

    def one_view(view):
        return jax.grad(view_loss, argnums=(0, 1), has_aux=True)(state.vertices, values, view)

    means = jax.tree.map(lambda rows: jnp.mean(rows, axis=0), lax.map(one_view, targets))
    (to_vertices, to_values), (terms, asked) = means
    through_values, _ = pull_back(to_values)
    consistency, to_shape = jax.value_and_grad(_consistency)(state.vertices, state)
    gradient = to_vertices + through_values + weights.consistency * to_shape
    loss = sum(getattr(weights, name) * term for name, term in terms.items()) + weights.consistency * consistency
    moved = descend(state, gradient, rates, shortest=shortest_edge(rates, fraction), pace=pace(fraction))
    if with_colors:
        change = asked[:, :-1] / jnp.maximum(asked[:, -1:], 1e-6)
        moved = dataclasses.replace(moved, features=jnp.clip(state.features + _COLOR_STEP * change, 0.0, 1.0))
    metrics = {"loss": loss, **terms, "consistency": consistency, "faces": state.num_faces}
    return moved, metrics, finite.finite_report({"gradient": gradient, "loss": loss})


def fit_surface(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    targets: ViewTargets,
    *,
    steps: int = 200,
    rates: RemeshingRates | None = None,
    weights: LossWeights | None = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[Float[np.ndarray, "w 3"], Int[np.ndarray, "g 3"]]:
    """Fits a mesh to masks and normals or colours of a few views: all views in every step, from coarse to fine.

    Args:
      vertices: of the shape to start from, in the world of the cameras; rates' lengths are in its units.
      faces: of the shape to start from, closed.
      targets: all views.
      steps: of the descent.
      rates: constants of continuous remeshing.
      weights: of the loss.
      progress: called with the steps done and the terms of the loss.

    Raises:
      FloatingPointError: the loss or its gradient is not finite.
    """
    rates, weights = rates or RemeshingRates(), weights or LossWeights()
    state = start_remeshing(vertices, faces, rates, num_features=targets.colors.shape[-1])
    for step in range(steps):
        fraction = jnp.float32(step / steps)
        state, terms, report = update(state, targets, fraction, rates=rates, weights=weights)
        if (problem := finite.describe_non_finite(report)) is not None:
            raise FloatingPointError(f"step {step}: {problem}")
        state = remesh(state, rates)
        if progress is not None:
            progress(step + 1, {name: float(value) for name, value in terms.items()})
    return current_mesh(state)


def with_edge_length(state: RemeshingState, length: float) -> RemeshingState:
    """The state with one wanted edge length for all vertices: that of a shape that is fine from the start."""
    return dataclasses.replace(state, lengths=jnp.full_like(state.lengths, length))


def state_mesh(state: RemeshingState) -> Mesh:
    """The mesh of a state; its features are vertex colours, made linear. Runs on the host."""
    vertices, faces = current_mesh(state)
    colors = None
    if state.features.shape[-1] == 3:
        colors = linear_from_srgb(jnp.asarray(np.asarray(state.features)[: len(vertices)]))
    return Mesh(jnp.asarray(vertices), jnp.asarray(faces), vertex_colors=colors)


def shortest_edge(rates: RemeshingRates, fraction: Float[Array, ""]) -> Float[Array, ""]:
    """The finest edge of a moment: falls geometrically to the rates' shortest during the first half of the run."""
    left = jnp.maximum(0.0, 1.0 - 2.0 * fraction)
    return rates.shortest * (rates.longest / rates.shortest) ** (0.5 * left)


def pace(fraction: Float[Array, ""]) -> Float[Array, ""]:
    """The share of the step size at a moment: 1, and over the last 40% of the run down to a twentieth by a cosine."""
    late = jnp.clip((fraction - _SLOWING) / (1 - _SLOWING), 0.0, 1.0)
    return _SLOWEST + (1 - _SLOWEST) * 0.5 * (1 + jnp.cos(jnp.pi * late))


def _consistency(vertices, state):
    """1 - cos between the faces on both sides of all edges."""
    pairs, weights = pairs_of_faces(state)
    return face_normal_consistency(vertices, state.faces, pairs, weights=weights)


def _color_sums(state, rendering, residual):
    """What the pixels of a view ask of each vertex: sums of residuals and of weights, by barycentric shares."""
    residual = jnp.concatenate([residual, jnp.ones_like(residual[..., :1])], axis=-1)
    nothing = jnp.zeros((state.vertices.shape[0], residual.shape[-1]), residual.dtype)
    _, pull_back = jax.vjp(lambda values: interpolate(values, state.faces, rendering), nothing)
    return pull_back(residual)[0]
