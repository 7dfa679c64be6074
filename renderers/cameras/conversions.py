"""Poses and intrinsics of other programs, to and from ours.

| program            | camera axes (x, y, z)  | stores                                | first pixel centre |
|--------------------|------------------------|---------------------------------------|--------------------|
| ours, COLMAP       | right, down, forward   | camera_from_world; COLMAP as (q, t)   | (0.5, 0.5)         |
| OpenGL, Blender,   | right, up, backward    | world_from_camera                     | (0.5, 0.5)         |
| nerfstudio, NeRF   |                        |                                       |                    |
| LLFF               | down, right, backward  | world_from_camera, 3x4                | -                  |
| PyTorch3D          | left, up, forward      | R, T of row vectors: X_cam = X R + T  | NDC                |

The world is left as it is, except by the two functions named after it: a capture keeps its own frame.
Sources: COLMAP's documentation of cameras.txt and images.txt, PyTorch3D's notes on cameras, LLFF's README, Blender's
manual; the checks in tests/renderers/cameras/conversions_test.py are computed by hand.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera, CameraModel
from renderers.cameras.pose import from_parts, invert, matrix_from_quaternion, quaternion_from_matrix, to_parts

NdcFormat = Literal["ndc_isotropic", "ndc_norm_image_bounds"]
# (our model, parameters before the distortion, places in our distortion that the rest fills)
_COLMAP_MODELS: dict[str, tuple[CameraModel, int, tuple[int, ...]]] = {
    "SIMPLE_PINHOLE": ("pinhole", 3, ()),
    "PINHOLE": ("pinhole", 4, ()),
    "SIMPLE_RADIAL": ("pinhole", 3, (0,)),
    "RADIAL": ("pinhole", 3, (0, 1)),
    "OPENCV": ("pinhole", 4, (0, 1, 2, 3)),
    "OPENCV_FISHEYE": ("fisheye", 4, (0, 1, 2, 3)),
    "FULL_OPENCV": ("pinhole", 4, (0, 1, 2, 3, 4, 5, 6, 7)),
    "SIMPLE_RADIAL_FISHEYE": ("fisheye", 3, (0,)),
    "RADIAL_FISHEYE": ("fisheye", 3, (0, 1)),
}


def from_opengl(world_from_opengl: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """`camera_from_world` of an OpenGL, Blender or nerfstudio camera given as world_from_camera (x right, y up)."""
    return invert(_scale_columns(world_from_opengl, (1.0, -1.0, -1.0)))


def to_opengl(camera_from_world: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """World_from_camera in OpenGL axes; the inverse of `from_opengl`."""
    return _scale_columns(invert(camera_from_world), (1.0, -1.0, -1.0))


def from_blender(world_from_blender: Float[Array, "4 4"], camera_angle_x: float, size: tuple[int, int]) -> Camera:
    """Camera of a Blender or NeRF-synthetic file: OpenGL axes, square pixels, centred principal point.

    Args:
        world_from_blender: `transform_matrix`. Blender's world is z-up; `world_to_y_up` converts it where wanted.
        camera_angle_x: horizontal field of view in radians.
        size: (height, width) in pixels.
    """
    height, width = size
    dtype = world_from_blender.dtype
    focal = 0.5 * width / jnp.tan(0.5 * jnp.asarray(camera_angle_x, dtype))
    principal = jnp.asarray([width / 2, height / 2], dtype)
    return Camera(from_opengl(world_from_blender), jnp.stack([focal, focal]), principal, size)


def to_blender(camera: Camera) -> tuple[Float[Array, "4 4"], Float[Array, ""]]:
    """`(world_from_blender, camera_angle_x)`. Blender knows one focal length: fx is written, fy and shift are not."""
    return to_opengl(camera.camera_from_world), 2.0 * jnp.arctan(0.5 * camera.size[1] / camera.focal[0])


def from_llff(world_from_llff: Float[Array, "*n 3 4"]) -> Float[Array, "*n 4 4"]:
    """`camera_from_world` from the first four columns of LLFF's 3x5 (axes down, right, backward)."""
    down, right, backward, center = (world_from_llff[..., i] for i in range(4))
    return invert(from_parts(jnp.stack([right, down, -backward], axis=-1), center))


def to_llff(camera_from_world: Float[Array, "*n 4 4"]) -> Float[Array, "*n 3 4"]:
    """World_from_camera with axes down, right, backward; the inverse of `from_llff`."""
    rotation, center = to_parts(invert(camera_from_world))
    return jnp.stack([rotation[..., 1], rotation[..., 0], -rotation[..., 2], center], axis=-1)


def from_colmap(quaternion: Float[Array, "*n 4"], translation: Float[Array, "*n 3"]) -> Float[Array, "*n 4 4"]:
    """`camera_from_world` of COLMAP's `(qvec, tvec)`: wxyz, any positive length; same axes as ours."""
    return from_parts(matrix_from_quaternion(quaternion), translation)


def to_colmap(camera_from_world: Float[Array, "*n 4 4"]) -> tuple[Float[Array, "*n 4"], Float[Array, "*n 3"]]:
    """COLMAP's `(qvec, tvec)`, qvec a unit wxyz quaternion with w >= 0."""
    rotation, translation = to_parts(camera_from_world)
    return quaternion_from_matrix(rotation), translation


def colmap_camera(
    name: str, parameters: Float[Array, " p"], size: tuple[int, int], camera_from_world: Float[Array, "4 4"]
) -> Camera:
    """Camera of a COLMAP lens model by its name in cameras.txt, `OPENCV` for instance.

    Raises:
        ValueError: an unsupported model (FOV, THIN_PRISM_FISHEYE, ...) or the wrong number of parameters.
    """
    if name not in _COLMAP_MODELS:
        raise ValueError(
            f"COLMAP camera model must be one of {', '.join(_COLMAP_MODELS)}, got {name}; "
            "run `colmap image_undistorter` first"
        )
    model, num_pinhole, places = _COLMAP_MODELS[name]
    if parameters.shape[0] != num_pinhole + len(places):
        raise ValueError(
            f"COLMAP model {name} takes {num_pinhole + len(places)} parameters, got {parameters.shape[0]}; "
            "is the file cut?"
        )
    focal = jnp.stack([parameters[0], parameters[0] if num_pinhole == 3 else parameters[1]])
    distortion = None
    if places:
        length = 8 if max(places) > 3 else 4
        distortion = jnp.zeros(length, parameters.dtype).at[jnp.asarray(places)].set(parameters[num_pinhole:])
    return Camera(camera_from_world, focal, parameters[num_pinhole - 2 : num_pinhole], size, model, distortion)


def to_colmap_lens(camera: Camera) -> tuple[str, Float[Array, " p"]]:
    """COLMAP's model name and parameters for a pinhole or fisheye camera.

    Raises:
        ValueError: an orthographic camera, which COLMAP does not have.
    """
    if camera.model == "orthographic":
        raise ValueError(
            "COLMAP has pinhole and fisheye cameras, got orthographic; write the pose with to_colmap alone"
        )
    pinhole = jnp.concatenate([camera.focal, camera.principal])
    if camera.distortion is None and camera.model == "pinhole":
        return "PINHOLE", pinhole
    given = jnp.zeros(0, pinhole.dtype) if camera.distortion is None else camera.distortion
    if camera.model == "fisheye":
        name, count = "OPENCV_FISHEYE", 4
    else:
        name, count = ("OPENCV", 4) if given.shape[0] <= 4 else ("FULL_OPENCV", 8)
    return name, jnp.concatenate([pinhole, jnp.pad(given, (0, count - given.shape[0]))])


def from_pytorch3d(rotation: Float[Array, "*n 3 3"], translation: Float[Array, "*n 3"]) -> Float[Array, "*n 4 4"]:
    """`camera_from_world` of PyTorch3D's R and T, which act on row vectors into a left, up, forward frame."""
    flip = jnp.asarray([-1.0, -1.0, 1.0], rotation.dtype)
    columns = jnp.swapaxes(rotation, -1, -2)
    ours = columns * jnp.broadcast_to(flip[:, None], columns.shape)
    return from_parts(ours, translation * jnp.broadcast_to(flip, translation.shape))


def to_pytorch3d(camera_from_world: Float[Array, "*n 4 4"]) -> tuple[Float[Array, "*n 3 3"], Float[Array, "*n 3"]]:
    """PyTorch3D's R and T; the inverse of `from_pytorch3d`."""
    rotation, translation = to_parts(camera_from_world)
    flip = jnp.asarray([-1.0, -1.0, 1.0], rotation.dtype)
    flipped = rotation * jnp.broadcast_to(flip[:, None], rotation.shape)
    return jnp.swapaxes(flipped, -1, -2), translation * jnp.broadcast_to(flip, translation.shape)


def intrinsics_from_ndc(
    focal_length: Float[Array, " 2"],
    principal_point: Float[Array, " 2"],
    size: tuple[int, int],
    ndc: NdcFormat = "ndc_isotropic",
) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
    """Focal and principal point in pixels from PyTorch3D's normalised coordinates (x left, y up, CO3D's two formats).

    "ndc_isotropic" counts in half the shorter side, "ndc_norm_image_bounds" in half of each side.
    """
    half, center = _ndc_units(size, ndc, focal_length.dtype)
    return focal_length * half, center - principal_point * half


def intrinsics_to_ndc(
    focal: Float[Array, " 2"],
    principal: Float[Array, " 2"],
    size: tuple[int, int],
    ndc: NdcFormat = "ndc_isotropic",
) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
    """PyTorch3D's `(focal_length, principal_point)`; the inverse of `intrinsics_from_ndc`."""
    half, center = _ndc_units(size, ndc, focal.dtype)
    return focal / half, (center - principal) / half


def points_to_y_up(points_z_up: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Points of a z-up world with front +X in our y-up world with front +Z: (x, y, z) -> (y, z, x)."""
    return jnp.roll(points_z_up, -1, axis=-1)


def points_to_z_up(points_y_up: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """The inverse of `points_to_y_up`: (x, y, z) -> (z, x, y)."""
    return jnp.roll(points_y_up, 1, axis=-1)


def world_to_y_up(camera_from_z_up: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """The same cameras in the y-up world that `points_to_y_up` moves the points to."""
    return _permute_world(camera_from_z_up, (1, 2, 0))


def world_to_z_up(camera_from_y_up: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """The same cameras in the z-up world that `points_to_z_up` moves the points to."""
    return _permute_world(camera_from_y_up, (2, 0, 1))


def _permute_world(camera_from_world, order):
    rotation, translation = to_parts(camera_from_world)
    return from_parts(rotation[..., jnp.asarray(order)], translation)


def _scale_columns(world_from_camera, signs):
    rotation, center = to_parts(world_from_camera)
    return from_parts(rotation * jnp.broadcast_to(jnp.asarray(signs, rotation.dtype), rotation.shape), center)


def _ndc_units(size, ndc, dtype) -> tuple[jax.Array, jax.Array]:
    height, width = size
    sides = (width, height) if ndc == "ndc_norm_image_bounds" else (min(size), min(size))
    return jnp.asarray(sides, dtype) / 2.0, jnp.asarray([width, height], dtype) / 2.0
