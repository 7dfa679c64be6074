"""From a signed-distance field to what rays see: `render` for surfaces, by NeuS's alphas or VolSDF's density."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.volumes import quadrature, samplers
from renderers.volumes.render import RayRendering
from renderers.volumes.signed_distance import alpha_from_distance, density_from_distance

SurfaceField = Callable[[Array, Array], Any]


def render_neus(
    field: SurfaceField,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    edges: Float[Array, "r e"],
    sharpness: Float[Array, ""],
    *,
    anneal: float | Float[Array, ""] = 1.0,
    background: Float[Array, " c"] | None = None,
) -> tuple[RayRendering, Any]:
    """Render rays by NeuS's alphas (arXiv:2106.10689) at samples that are chosen already.

    Args:
        field: from points and directions `[n, 3]` to a record with `distance`, `gradient` and `color`, such as
            `fields.sdf.SurfacePoints`.
        origins: of rays.
        directions: unit vectors.
        edges: of the samples' intervals, metres.
        sharpness: one over the surface's deviation in metres.
        anneal: see `signed_distance.alpha_from_distance`.
        background: colour behind everything; None is black.

    Returns:
        What the rays see, normals included; and what the field said, leading axes r and s, for the eikonal loss.
    """
    said, along = _ask(field, origins, directions, edges)
    cosine = jnp.sum(said.gradient * along, -1)
    alpha = alpha_from_distance(said.distance, cosine, jnp.diff(edges), sharpness, anneal=anneal)
    return _rendering(quadrature.weights_from_alpha(alpha)[0], said, edges, background), said


def render_volsdf(
    field: SurfaceField,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    edges: Float[Array, "r e"],
    scale: Float[Array, ""],
    *,
    background: Float[Array, " c"] | None = None,
) -> tuple[RayRendering, Any]:
    """As `render_neus`, by VolSDF's density (arXiv:2106.12052) of scale beta in metres."""
    said, _ = _ask(field, origins, directions, edges)
    density = density_from_distance(said.distance, scale)
    return _rendering(quadrature.weights_from_density(density, jnp.diff(edges))[0], said, edges, background), said


def _ask(field, origins, directions, edges):
    points = samplers.interval_points(origins, directions, edges)
    along = jnp.broadcast_to(directions[:, None], points.shape)
    said = field(points.reshape(-1, 3), along.reshape(-1, 3))
    return jax.tree.map(lambda a: a.reshape(*points.shape[:-1], *a.shape[1:]), said), along


def _rendering(weights, said, edges, background):
    color, opacity = quadrature.composite(weights, said.color), quadrature.opacity(weights)
    length = jnp.sqrt(jnp.maximum(jnp.sum(said.gradient**2, -1, keepdims=True), 1e-24))
    return RayRendering(
        color=color if background is None else quadrature.over_background(color, opacity, background),
        opacity=opacity,
        distance=quadrature.expected_distance(weights, 0.5 * (edges[:, 1:] + edges[:, :-1])),
        median_distance=quadrature.median_distance(edges, weights),
        normal=quadrature.composite(weights, said.gradient / length),
    )
