"""From a capture to the normalised scene that is optimised, and back.

Training works in a frame where the cameras are centred on the origin and their farthest lies at distance 1, so that
step sizes mean the same in every capture. Results go back to the capture's own frame. The change of frame is a uniform
scale and a shift: no rotation, so that colours keep their direction.
"""

import dataclasses
import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import keys
from experiments.data.capture_record import Capture
from experiments.errors import InputError
from renderers.cameras.camera import Camera, CameraModel
from renderers.gaussians.gaussians import Gaussians, from_points


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """world = center + scale * normalised, world units of the capture."""

    center: np.ndarray
    scale: float


def camera_centers(camera_from_world: Float[np.ndarray, "v 4 4"]) -> Float[np.ndarray, "v 3"]:
    """Positions of the cameras."""
    return -np.einsum("vji,vj->vi", camera_from_world[:, :3, :3], camera_from_world[:, :3, 3])


def normalisation(capture: Capture) -> Normalisation:
    """Centre of the cameras and distance of the farthest one; the distance to the scene if they stand in one place."""
    centers = camera_centers(capture.camera_from_world)
    center = centers.mean(0)
    scale = float(np.linalg.norm(centers - center, axis=1).max())
    if scale <= 1e-9 * max(1.0, float(np.abs(center).max())):
        far = np.inf if capture.points is None else float(np.median(np.linalg.norm(capture.points - center, axis=1)))
        scale = far if 0 < far < np.inf else 1.0
    return Normalisation(center, scale)


def cameras(capture: Capture, frame: Normalisation) -> list[Camera]:
    """The views' cameras in the normalised frame, float32 on the host."""
    made = []
    for view, pose in enumerate(capture.camera_from_world):
        moved = pose.copy()
        moved[:3, 3] = (pose[:3, :3] @ frame.center + pose[:3, 3]) / frame.scale
        made.append(
            Camera(
                moved.astype(np.float32),
                capture.focal[view].astype(np.float32),
                capture.principal[view].astype(np.float32),
                capture.images[view].shape[:2],
                typing.cast(CameraModel, capture.model),
                None if capture.distortion is None else capture.distortion[view].astype(np.float32),
            )
        )
    return made


def to_capture_frame(gaussians: Gaussians, frame: Normalisation) -> Gaussians:
    """Gaussians of the normalised scene in the capture's own frame."""
    return Gaussians(
        means=gaussians.means * np.float32(frame.scale) + jnp.asarray(frame.center, jnp.float32)[None],
        quaternions=gaussians.quaternions,
        log_scales=gaussians.log_scales + np.float32(np.log(frame.scale)),
        opacity_logits=gaussians.opacity_logits,
        sh=gaussians.sh,
    )


def initial_gaussians(
    capture: Capture, frame: Normalisation, *, use_points: bool, number: int, degree: int, most: int, seed: int
) -> Gaussians:
    """Gaussians to start from: the capture's points, or random ones in the space that the cameras look at.

    Args:
      capture: photographs and points.
      frame: the normalised frame, which the result is in.
      use_points: start from `capture.points`.
      number: how many random ones to draw.
      degree: spherical-harmonic degree.
      most: cap; more points than that are thinned at random.
      seed: of the run.

    Raises:
      InputError: points were asked for and there are fewer than 4.
    """
    rng = keys.host_rng(seed, "initial points")
    if use_points:
        if capture.points is None or len(capture.points) < 4:
            raise InputError("the capture has no points to start from: choose --init=random")
        points = (capture.points - frame.center) / frame.scale
        colors = np.full(points.shape, 0.5) if capture.point_colors is None else capture.point_colors / 255.0
    else:
        points, colors = random_points(capture, frame, min(number, most), rng)
    if len(points) > most:
        chosen = np.sort(rng.permutation(len(points))[:most])
        points, colors = points[chosen], colors[chosen]
    return from_points(points, colors, degree=degree, opacity=0.5, scale_factor=0.5)


def random_points(
    capture: Capture, frame: Normalisation, number: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Random points in the space that the cameras look at, inside the silhouettes where images have an alpha channel.

    The space is a cube around the point nearest to all optical axes, half as wide as the median camera is far.
    """
    views = cameras(capture, frame)
    centers, focus = focus_point(views)
    reach = max(float(np.median(np.linalg.norm(centers - focus, axis=1))), 0.5)
    masked = all(image.shape[-1] == 4 for image in capture.images)
    points = np.zeros((0, 3))
    for _ in range(64 if masked else 1):
        drawn = focus + rng.uniform(-0.5, 0.5, (4 * number if masked else number, 3)) * reach
        points = np.concatenate([points, drawn[_in_hull(drawn, views, capture)] if masked else drawn])
        if len(points) >= number:
            break
    if len(points) < min(number, 4):
        points = focus + rng.uniform(-0.5, 0.5, (number, 3)) * reach
    points = points[:number]
    return points, _mean_colors(points, views, capture)


def focus_point(views: Sequence[Camera]) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, " 3"]]:
    """Centres of the cameras, and the point nearest to all their optical axes in the sense of least squares.

    Parallel axes leave it undetermined along them; it is then drawn to the middle of the cameras.
    """
    poses = np.stack([np.asarray(view.camera_from_world, np.float64) for view in views])
    centers, forward = camera_centers(poses), poses[:, 2, :3]
    across = np.eye(3)[None] - forward[:, :, None] * forward[:, None]  # projects off each optical axis
    pull = 1e-3 * len(views)
    focus = np.linalg.solve(
        across.sum(0) + pull * np.eye(3), np.einsum("vij,vj->i", across, centers) + pull * centers.mean(0)
    )
    return centers, focus


def _pixels(points, view):
    local = points @ view.camera_from_world[:3, :3].T.astype(np.float64) + view.camera_from_world[:3, 3]
    depth = local[:, 2]
    seen = depth > 1e-3
    pixel = local[:, :2] / np.where(seen, depth, 1.0)[:, None] * view.focal + view.principal
    column, row = np.floor(pixel).astype(np.int64).T
    seen &= (column >= 0) & (column < view.size[1]) & (row >= 0) & (row < view.size[0])
    return np.where(seen, row, 0), np.where(seen, column, 0), seen


def _in_hull(points, views, capture):
    """Points that at least half of the views see, and none of them beside the object."""
    outside, times_seen = np.zeros(len(points), bool), np.zeros(len(points), int)
    for view, image in zip(views, capture.images, strict=True):
        row, column, seen = _pixels(points, view)
        outside |= seen & (image[row, column, 3] <= 127)
        times_seen += seen
    return ~outside & (2 * times_seen >= len(views))


def _mean_colors(points, views, capture):
    total, count = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    for view, image in zip(views, capture.images, strict=True):
        row, column, seen = _pixels(points, view)
        total[seen] += image[row[seen], column[seen], :3] / 255.0
        count[seen] += 1
    return np.where(count > 0, total / np.maximum(count, 1), 0.5)


def device_cameras(views: list[Camera]) -> Camera:
    """Cameras of one size and model, stacked along a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)
