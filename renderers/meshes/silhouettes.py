"""Antialiased outlines with exact derivatives: how much of each pixel a mesh covers.

A z-buffer says what the centre of each pixel sees; moving a vertex changes nothing there until a centre is passed.
Along the outline, pixels are covered in part, and those areas do change. The edges of the outline are found as the
edges of faces whose neighbour lies on the same side of them (or that have none), cut into the pixels that they touch;
each piece gives or takes the exact area of the pixel beyond it (`kernels.edge_blend`). For outlines that do not cross
within a pixel the mask is the exact area, its gradient the exact gradient, and colours blend accordingly.

What the method cannot know: which surface is behind what another surface covers at all pixel centres near by. Colours
of features thinner than a pixel are missing (their mask is not); outlines that cross in a pixel are added up there.

Cost follows the number of pixels on the outline.
"""

import functools
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from renderers.cameras.camera import Camera, to_camera_frame
from renderers.kernels.dispatch import Backend
from renderers.kernels.edge_blend import visibility
from renderers.kernels.edge_blend.api import blend_outlines
from renderers.meshes.rasterize import opposite_vertices

silhouette_edges = visibility.silhouette_edges


@runtime_checkable
class Seen(Protocol):
    """Anything that knows what face each pixel sees, -1 where empty: a MeshRendering, a MeshImage."""

    @property
    def face_index(self) -> Int[Array, "h w"]:
        """Rows of faces."""
        ...


def antialias_image(
    image: Float[Array, "h w c"],
    rendering: Seen,
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    camera: Camera,
    *,
    opposite: Int[Array, "f 3"] | None = None,
    near: float = 0.01,
    backend: Backend | None = None,
) -> Float[Array, "h w c"]:
    """Blends colours across the outlines of surfaces by the exact area that each side has in a pixel.

    Differentiable in image, vertices and camera (pose, focal, principal, distortion); reverse mode. Under a lens that
    bends lines every edge is followed by 8 chords; edges that leave the lens's valid part stay hard.

    Args:
      image: one sample a pixel, any channels; background included.
      rendering: of the mesh; only its face_index is read.
      vertices: world units.
      faces: rows of vertices.
      camera: that the image was rendered with.
      opposite: `connectivity.opposite_vertices(faces)`. None: made anew at every call, in a trace by a sort.
      near: as given to the rasterizer; edges are cut there.
      backend: as given to the rasterizer; where outlines have no kernel of that name, xla.

    Raises:
      ValueError: the image is not of the camera's size.
      Unsupported: the backend cannot run here.
    """
    return antialias(image, rendering, vertices, faces, camera, opposite=opposite, near=near, backend=backend)[1]


def silhouette_mask(
    rendering: Seen,
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    camera: Camera,
    *,
    opposite: Int[Array, "f 3"] | None = None,
    near: float = 0.01,
    backend: Backend | None = None,
) -> Float[Array, "h w"]:
    """Share of each pixel that a mesh covers, in [0, 1]. Arguments and derivatives are those of `antialias_image`."""
    image = jnp.zeros((*rendering.face_index.shape, 0), vertices.dtype)
    return antialias(image, rendering, vertices, faces, camera, opposite=opposite, near=near, backend=backend)[0]


def antialias(
    image: Float[Array, "h w c"],
    rendering: Seen,
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    camera: Camera,
    *,
    opposite: Int[Array, "f 3"] | None = None,
    near: float = 0.01,
    backend: Backend | None = None,
) -> tuple[Float[Array, "h w"], Float[Array, "h w c"]]:
    """`silhouette_mask` and `antialias_image` in one walk."""
    face_index = rendering.face_index
    if face_index.shape != camera.size or image.shape[:2] != camera.size:
        raise ValueError(f"expected images of the camera's size {camera.size}, got {face_index.shape}, {image.shape}")
    hard = (face_index >= 0).astype(vertices.dtype)
    if len(faces) == 0 or len(vertices) == 0:
        return hard, image
    opposite = opposite_vertices(faces) if opposite is None else opposite
    points = to_camera_frame(camera, vertices)
    values = jnp.concatenate([hard[..., None], image], -1)
    sums = blend_outlines(values, points, faces, opposite, face_index, camera, near, backend=_outline_backend(backend))
    mask, colors = sums[..., 0], sums[..., 1:]
    # pixels where outlines cross may add up to more than there is; gradients stay those of the sum
    bounded = jnp.clip(lax.stop_gradient(colors), *_range_around(lax.stop_gradient(image)))
    return _replaced(mask, jnp.clip(mask, 0.0, 1.0)), _replaced(colors, bounded)


def _outline_backend(backend: Backend | None) -> Backend | None:
    return "xla" if backend in ("pallas_gpu", "pallas_tpu") else backend


def _replaced(array, by):
    return array + lax.stop_gradient(by - array)


def _range_around(image):
    """Lowest and highest value of each pixel and its four neighbours."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = (image, padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2])
    return functools.reduce(jnp.minimum, around), functools.reduce(jnp.maximum, around)
