"""Meshes to images: what each pixel sees of a triangle mesh, differentiable, through any camera.

Which face a pixel sees is found by `kernels.triangle_raster` and is piecewise constant. All else is a closed form of
that face's corners and the pixel's ray, so that gradients reach vertices, attributes, pose, focal, principal and
distortion. Moving silhouettes have a gradient through `mask` with antialiasing (`silhouettes`).
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera, to_camera_frame
from renderers.cameras.rays import pixel_grid
from renderers.kernels.dispatch import Backend
from renderers.kernels.triangle_raster.api import blend, surface, visible_faces
from renderers.kernels.triangle_raster.reference import components
from renderers.kernels.triangle_raster.surface import corners_of, in_camera_frame, ray_barycentrics
from renderers.meshes import connectivity
from renderers.meshes.face_boxes import face_boxes
from renderers.meshes.pixel_rays import pixel_rays, projection_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class MeshRendering:
    """What the pixels of a camera see of a mesh.

    Attributes:
      mask: 1 on the mesh, 0 off it; with antialiasing the share of the pixel that the mesh covers at silhouettes.
      depth: camera z of the surface at the pixel's centre, metres; 0 where empty.
      face_index: -1 where empty.
      barycentric: of the surface point, in the order of the face's corners; 0 where empty.
      normal: unit normal of the face in the world's frame, as its winding has it; 0 where empty.
      attributes: interpolated along the surface (perspective-correct); 0 where empty. None were given: k = 0.
      overflow: (face, tile) intersections dropped for want of capacity; always 0 on the reference and cpu backends.
    """

    mask: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    face_index: Int[Array, "h w"]
    barycentric: Float[Array, "h w 3"]
    normal: Float[Array, "h w 3"]
    attributes: Float[Array, "h w k"]
    overflow: Int[Array, ""]


def rasterize_mesh(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    camera: Camera,
    *,
    attributes: Float[Array, "v k"] | None = None,
    antialias: bool = True,
    near: float = 0.01,
    opposite: Int[Array, "f 3"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> MeshRendering:
    """What each pixel of a camera sees of a mesh: nearest face, and depth, normal and attributes at the pixel's centre.

    Both sides of faces are seen. Triangles may cross the camera's plane, or have no area, or corners that are not
    finite: such faces are not seen, and no gradient becomes NaN for them. Differentiable in vertices, attributes and
    every camera parameter; at fixed visibility, except for `mask` with antialiasing. Float32 and (reference and xla)
    float64.

    Args:
      vertices: world frame, metres.
      faces: rows of vertices; one with an index outside is not seen.
      camera: any model, with or without distortion.
      attributes: values a vertex.
      antialias: whether `mask` is the covered share of the pixel at silhouettes, with its gradient, or 0 and 1.
      near: what is nearer is not seen; metres along z, of a fisheye along the ray. Positive unless orthographic.
      opposite: `connectivity.opposite_vertices(faces)`, for antialiasing. None: made anew at every call, in a trace by
        a sort of all edges.
      capacity: bound on (face, tile) intersections. None: counted outside a trace, a bound inside one; see `overflow`.
        The reference and cpu backends need none.
      backend: of the z-buffer, the surface and the outlines; None takes the platform's default.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: `near` is not positive for a pinhole camera.
    """
    if camera.model == "pinhole" and isinstance(near, int | float) and not near > 0:
        raise ValueError(f"expected near > 0 for a pinhole camera, got {near}: points in its own plane have no pixel")
    index, overflow = _visible(vertices, faces, camera, near, capacity, backend)
    rays, _ = pixel_rays(camera)
    pose = camera.camera_from_world[:3].astype(vertices.dtype)
    barycentric, depth, normal = surface(
        vertices, faces, index, rays, pose, projection=projection_of(camera), backend=backend
    )
    values = jnp.zeros((len(vertices), 0), vertices.dtype) if attributes is None else attributes
    rendering = MeshRendering(
        mask=(index >= 0).astype(vertices.dtype),
        depth=depth,
        face_index=index,
        barycentric=barycentric,
        normal=normal,
        attributes=blend(values, faces, index, barycentric.astype(values.dtype), backend=backend),
        overflow=overflow,
    )
    if not antialias:
        return rendering
    from renderers.meshes import silhouettes  # which builds on this module

    opposite = opposite_vertices(faces) if opposite is None else opposite
    mask = silhouettes.silhouette_mask(
        rendering, vertices, faces, camera, opposite=opposite, near=near, backend=backend
    )  # fmt: skip
    return dataclasses.replace(rendering, mask=mask)


def interpolate(
    values: Float[Array, "v k"], faces: Int[Array, "f 3"], rendering: MeshRendering, *, backend: Backend | None = None
) -> Float[Array, "h w k"]:
    """Values of vertices at the surface points of all pixels, perspective-correct; 0 where empty.

    Differentiable in values and, through the rendering, in what it was made from.

    Args:
      values: of whatever `faces` index.
      faces: row i belongs to the rasterized face i: the mesh's own faces, or `uv_faces` with values uv.
      rendering: of the mesh.
      backend: as for `rasterize_mesh`.
    """
    return blend(values, faces, rendering.face_index, rendering.barycentric.astype(values.dtype), backend=backend)


def visible_faces_mask(rendering: MeshRendering, faces: Int[Array, "f 3"]) -> Bool[Array, " f"]:
    """Which faces some pixel sees."""
    index = rendering.face_index.reshape(-1)
    return jnp.zeros(len(faces), bool).at[jnp.where(index >= 0, index, len(faces))].set(True, mode="drop")


def visible_vertices(rendering: MeshRendering, faces: Int[Array, "f 3"], num_vertices: int) -> Bool[Array, " v"]:
    """Which vertices are corners of a face that some pixel sees."""
    seen = visible_faces_mask(rendering, faces)
    at = jnp.where(seen[:, None], faces, num_vertices).reshape(-1)
    return jnp.zeros(num_vertices, bool).at[at].set(True, mode="drop")


def barycentric_derivatives(
    rendering: MeshRendering, vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], camera: Camera
) -> Float[Array, "h w 3 2"]:
    """Derivatives of the barycentric coordinates by the pixel's position (column, row); 0 where empty.

    Exact for every lens: what `values . derivatives` of texture coordinates says of their footprint. Differentiable.
    """
    hit = rendering.face_index >= 0
    world = corners_of(vertices, faces, rendering.face_index)
    corners = in_camera_frame(world, camera.camera_from_world[:3].astype(vertices.dtype))
    grid = pixel_grid(camera)

    def shares(pixels):
        rays, _ = pixel_rays(camera, pixels)
        return jnp.stack(ray_barycentrics(corners, components(rays), hit, projection_of(camera)), -1)

    still = jnp.zeros_like(grid)
    moved = [jax.jvp(shares, (grid,), (still.at[..., axis].set(1.0),))[1] for axis in range(2)]
    return jnp.stack(moved, -1)


def opposite_vertices(faces: Int[Array, "f 3"]) -> Int[Array, "f 3"]:
    """`connectivity.opposite_vertices`: on the host where the faces are known, inside a trace by a sort."""
    if isinstance(faces, Tracer):
        return connectivity.traced_opposite_vertices(faces)
    return jnp.asarray(connectivity.opposite_vertices(np.asarray(faces)))


def _visible(vertices, faces, camera, near, capacity, backend):
    """Face indices and overflow; not differentiable."""
    vertices, camera = jax.lax.stop_gradient((vertices, camera))
    points = to_camera_frame(camera, vertices)
    rays, valid = pixel_rays(camera)
    near = jnp.asarray(near, points.dtype)
    boxes = face_boxes(points, faces, camera, rays, valid, near)
    rays = jnp.where(valid[..., None], rays, jnp.nan)
    return visible_faces(
        points, faces, rays, boxes, near, projection=projection_of(camera), capacity=capacity, backend=backend
    )
