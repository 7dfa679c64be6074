"""Corrections of cameras that are nearly right: parameters to search over, and how far two cameras are apart.

A correction is a short vector x, zero for the camera as it is:

    x[0:3]  rotation vector, radians                          x[6:8]   logarithms of the factors on fx and fy
    x[3:6]  translation, in units of the pivot's distance     x[8:10]  shift of the principal point, image diagonals
                                                              x[10:]   added to the distortion coefficients

The pose moves by a twist about a pivot, a point in front of the camera where the scene is, and the pivot recedes as the
focal lengths grow, so that the scene keeps its size in the image:

    camera_from_world <- T(p e^m) exp(x[0:6]) T(-p) camera_from_world,   m = (x[6] + x[7]) / 2.

About the camera's own centre, turning it looks much like moving it sideways, and zooming like moving closer; about the
pivot these pairs come apart, which a search that follows gradients needs: the normal matrix of points seen at 7 times
their spread has the condition 47, not 213. All parameters have comparable effects on the image. The set of cameras that
can be reached is the same.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera, camera_center
from renderers.cameras.pose import compose, from_parts, se3_exp, so3_log


def correction_length(camera: Camera, *, focal: bool = True, principal: bool = False, distortion: bool = False) -> int:
    """Number of parameters of a correction: 6 for the pose, 8 with focal lengths, 10 with the principal point, ...

    Raises:
      ValueError: parts are left out in between, or the camera has no distortion to correct.
    """
    if (principal and not focal) or (distortion and not principal):
        raise ValueError("expected the principal point only with focal lengths, and distortion only with both")
    coefficients = 0 if camera.distortion is None else camera.distortion.shape[-1]
    if distortion and not coefficients:
        raise ValueError("expected a camera with distortion coefficients to correct, got an ideal lens")
    return 6 + 2 * focal + 2 * principal + coefficients * distortion


def corrected(camera: Camera, x: Float[Array, " p"], pivot: Float[Array, " 3"]) -> Camera:
    """The camera with a correction applied; differentiable in both modes, at zero too.

    Args:
      camera: the camera to correct.
      x: see the module; its length says what is corrected (`correction_length`).
      pivot: a point of the scene in the camera's frame, nearest on the optical axis.
    """
    zoom = jnp.mean(x[6:8]) if x.shape[0] > 6 else jnp.zeros((), x.dtype)
    distance = jnp.linalg.norm(pivot)
    twist = se3_exp(jnp.concatenate([x[:3], distance * x[3:6]]))
    about_pivot = compose(_shift(pivot * jnp.exp(zoom)), compose(twist, _shift(-pivot)))
    changes = {"camera_from_world": compose(about_pivot, camera.camera_from_world)}
    if x.shape[0] > 6:
        changes["focal"] = camera.focal * jnp.exp(x[6:8])
    if x.shape[0] > 8:
        changes["principal"] = camera.principal + (camera.size[0] ** 2 + camera.size[1] ** 2) ** 0.5 * x[8:10]
    if x.shape[0] > 10 and camera.distortion is not None:
        changes["distortion"] = camera.distortion + x[10:]
    return dataclasses.replace(camera, **changes)


def disturbed(
    camera: Camera, rotation_vector: Float[Array, " 3"], move: Float[Array, " 3"], log_focal: Float[Array, " 2"]
) -> Camera:
    """The camera turned about its own centre, moved, and zoomed.

    Args:
      camera: the camera to disturb.
      rotation_vector: radians, in the camera's frame.
      move: of the camera's centre, in the world's frame and unit.
      log_focal: logarithms of the factors on fx and fy.
    """
    turned = compose(se3_exp(jnp.concatenate([rotation_vector, jnp.zeros(3, move.dtype)])), camera.camera_from_world)
    pose = compose(turned, _shift(-move))
    return dataclasses.replace(camera, camera_from_world=pose, focal=camera.focal * jnp.exp(log_focal))


def differences(a: Camera, b: Camera) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """How far two cameras are apart: angle between them (degrees), distance of centres (world units), focal lengths
    (largest of the two, relative).
    """
    rotation = jnp.matmul(a.camera_from_world[:3, :3], b.camera_from_world[:3, :3].T, precision="highest")
    angle = jnp.linalg.norm(so3_log(rotation))
    centres = jnp.linalg.norm(camera_center(a) - camera_center(b))
    focal = jnp.max(jnp.abs(jnp.expm1(jnp.log(a.focal) - jnp.log(b.focal))))
    return jnp.rad2deg(angle), centres, focal


def _shift(move):
    return from_parts(jnp.eye(3, dtype=move.dtype), move)
