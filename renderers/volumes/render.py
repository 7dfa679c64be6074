"""From a field to what rays and cameras see.

A field is any function of points `[n, 3]` and unit directions `[n, 3]` that gives densities per metre `[n]` and values
`[n, c]` (colours, features). The functions here are short on purpose: a training step that wants another order of
things composes `samplers`, `quadrature` and `packed` itself.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from renderers.cameras.camera import Camera
from renderers.cameras.rays import Rays, camera_rays
from renderers.volumes import packed, quadrature, samplers
from renderers.volumes.packed import PackedSamples
from renderers.volumes.spacing import Spacing
from renderers.volumes.step_functions import Jitter

Field = Callable[[Array, Array], tuple[Array, Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class RayRendering:
    """What rays see; `*r` is the axis of rays, or the image's h and w.

    Attributes:
      color: values by weight, over the background if there is one.
      opacity: share of light that the field stops.
      distance: expected distance along the ray, metres, of what is seen; 0 where nothing is.
      median_distance: by which half of what is seen lies in front; the middle of the ray where nothing is.
      normal: unit normals by weight (shorter where they disagree or the ray is not opaque), world frame; or None.
    """

    color: Float[Array, "*r c"]
    opacity: Float[Array, "*r"]
    distance: Float[Array, "*r"]
    median_distance: Float[Array, "*r"]
    normal: Float[Array, "*r 3"] | None = None


def render_rays(
    key: Key[Array, ""],
    field: Field,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    near: Float[Array, " r"],
    far: Float[Array, " r"],
    *,
    num_samples: int = 64,
    num_fine_samples: int = 0,
    jitter: Jitter = "stratified",
    spacing: Spacing = "linear",
    background: Float[Array, " c"] | None = None,
    normals: Callable[[Array], Array] | None = None,
) -> RayRendering:
    """Render rays as NeRF does (arXiv:2003.08934, sections 4 and 5.2): even samples, then more where the weight is.

    Args:
        key: consumed, whatever the jitter.
        field: of points and directions, see above.
        origins: of rays.
        directions: unit vectors.
        near: where each ray starts, metres.
        far: where it ends; `samplers.ray_box` has both.
        num_samples: even ones, on the axis that `spacing` bends.
        num_fine_samples: drawn by the weights of those, which are kept; 0 for none.
        jitter: "none" where the same picture is wanted every time.
        spacing: see `volumes.spacing`.
        background: colour behind everything; None is black.
        normals: unit normals of points, `fields.normals` has some; None leaves them out.
    """
    first, second = jax.random.split(key)
    edges = samplers.stratified_edges(first, near, far, num_samples, jitter=jitter, spacing=spacing)
    if num_fine_samples:
        density, _ = _ask(field, origins, directions, edges)
        weights, _ = quadrature.weights_from_density(density, jnp.diff(edges))
        edges = samplers.merged_edges(second, edges, weights, num_fine_samples, jitter=jitter)
    return render_edges(field, origins, directions, edges, background=background, normals=normals)


def render_edges(
    field: Field,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    edges: Float[Array, "r e"],
    *,
    background: Float[Array, " c"] | None = None,
    normals: Callable[[Array], Array] | None = None,
    opaque_background: bool = False,
) -> RayRendering:
    """Render rays at samples that are chosen already: the field is asked in the middle of each interval."""
    density, values = _ask(field, origins, directions, edges)
    weights, _ = quadrature.weights_from_density(density, jnp.diff(edges), opaque_background=opaque_background)
    color, opacity = quadrature.composite(weights, values), quadrature.opacity(weights)
    normal = None
    if normals is not None:
        points = samplers.interval_points(origins, directions, edges)
        normal = quadrature.composite(weights, normals(points.reshape(-1, 3)).reshape(points.shape))
    return RayRendering(
        color=color if background is None else quadrature.over_background(color, opacity, background),
        opacity=opacity,
        distance=quadrature.expected_distance(weights, 0.5 * (edges[:, 1:] + edges[:, :-1])),
        median_distance=quadrature.median_distance(edges, weights),
        normal=normal,
    )


def _ask(field, origins, directions, edges):
    points = samplers.interval_points(origins, directions, edges)
    along = jnp.broadcast_to(directions[:, None], points.shape)
    density, values = field(points.reshape(-1, 3), along.reshape(-1, 3))
    return density.reshape(points.shape[:-1]), values.reshape(*points.shape[:-1], -1)


def render_packed(
    field: Field,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    samples: PackedSamples,
    *,
    background: Float[Array, " c"] | None = None,
    normals: Callable[[Array], Array] | None = None,
) -> RayRendering:
    """Render rays at samples of all rays in one buffer, as `occupancy.occupied_samples` gives them.

    The same picture as `render_edges` where the samples are the same, but that space between two samples of a ray,
    which is empty, has no part in the median.
    """
    points, along = packed.points_and_directions(origins, directions, samples)
    density, values = field(points, along)
    weights, _ = packed.weights_from_density(density, samples)
    color, opacity = packed.sum_by_ray(weights[:, None] * values, samples), packed.sum_by_ray(weights, samples)
    return RayRendering(
        color=color if background is None else quadrature.over_background(color, opacity, background),
        opacity=opacity,
        distance=packed.expected_distance(weights, samples),
        median_distance=packed.median_distance(weights, samples),
        normal=None if normals is None else packed.sum_by_ray(weights[:, None] * normals(points), samples),
    )


def render_image(
    render: Callable[[Rays], Any],
    camera: Camera,
    *,
    chunk: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Render all pixels of a camera, some at a time. Runs on the host.

    Args:
        render: from rays `[chunk, ...]` to a record of arrays with that leading axis, such as `RayRendering`; jitted by
            the caller, it compiles once: the last chunk is filled up with copies of the last ray.
        camera: any model, with distortion.
        chunk: rays at a time; what bounds the memory.
        progress: told the number of rays done and of all rays, after each chunk.

    Returns:
        The same record with axes h and w for that of the rays.

    Raises:
        ValueError: chunk below 1.
    """
    if chunk < 1:
        raise ValueError(f"expected at least one ray a chunk, got {chunk}")
    count = camera.size[0] * camera.size[1]
    rays = jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), camera_rays(camera))
    pieces = []
    for start in range(0, count, chunk):
        index = jnp.minimum(jnp.arange(start, start + chunk), count - 1)
        piece = render(jax.tree.map(lambda a, index=index: a[index], rays))
        pieces.append(jax.device_get(jax.tree.map(lambda a, start=start: a[: min(chunk, count - start)], piece)))
        if progress is not None:
            progress(min(start + chunk, count), count)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts).reshape(*camera.size, *parts[0].shape[1:]), *pieces)
