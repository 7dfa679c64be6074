"""Boxes hold every pixel that sees a face, for every lens, near plane and place; and are not much larger."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import project, to_camera_frame
from renderers.kernels.triangle_raster.reference import components, hit_depth
from renderers.meshes.face_boxes import face_boxes
from renderers.meshes.pixel_rays import pixel_rays, projection_of
from tests.renderers.meshes import rasterizer_scenes as shapes

NEAR = 0.05


def _boxes_and_hits(lens, spread, vertices, faces, distance):
    camera = shapes.camera(lens, spread=spread, distance=distance)

    @jax.jit
    def run(vertices, camera):
        points = to_camera_frame(camera, vertices)
        rays, valid = pixel_rays(camera)
        boxes = face_boxes(points, faces, camera, rays, valid, jnp.float32(NEAR))
        corners = [tuple(v[:, None, None] for v in components(points[faces[:, k]])) for k in range(3)]
        ray = tuple(v[None] for v in components(jnp.where(valid[..., None], rays, jnp.nan)))
        return boxes, jnp.isfinite(hit_depth(corners, ray, jnp.float32(NEAR), projection_of(camera)))

    return (np.asarray(v) for v in run(vertices, camera))


@pytest.mark.parametrize(
    ("lens", "spread"),
    [
        ("pinhole", 1.0),
        ("pinhole", 5.0),
        ("brown", 1.2),
        ("orthographic", 1.0),
        ("fisheye", 4.0),
        ("kannala_brandt", 3),
    ],
)
def test_every_pixel_that_hits_is_in_the_box(lens, spread):
    """Of faces in front, behind, across the near plane, and around the camera, large and tiny."""
    rng = np.random.default_rng(3)
    scale = 10 ** rng.uniform(-2.5, 1, (240, 1, 1))
    corners = rng.normal(size=(240, 1, 3)) * rng.choice([0.2, 1.0, 3.0], (240, 1, 1))
    corners = corners + rng.normal(size=(240, 3, 3)) * scale
    vertices = jnp.asarray(corners.reshape(-1, 3), jnp.float32)
    boxes, hits = _boxes_and_hits(lens, spread, vertices, jnp.arange(720).reshape(-1, 3), 0.6)
    height, width = shapes.SIZE
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    left, top, right, bottom = (v[:, None, None] for v in boxes.T)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    assert not (hits & ~inside).any()
    assert hits.any((1, 2)).mean() > 0.2, "the test sees faces"
    assert (boxes[:, 2:] <= (width, height)).all() and (boxes >= 0).all()
    if lens in ("pinhole", "orthographic"):
        _assert_tight(boxes, corners, lens, spread)


def _assert_tight(boxes, corners, lens, spread):
    """Faces wholly before the camera: their box ends with the last pixel centre between their corners."""
    camera = shapes.camera(lens, spread=spread, distance=0.6)
    pixels, depths = (np.asarray(v, np.float64) for v in project(camera, jnp.asarray(corners, jnp.float32)))
    before = (depths > 2 * NEAR).all(1)
    first, last = np.ceil(pixels.min(1) - 0.5), np.floor(pixels.max(1) - 0.5) + 1
    first, last = (np.clip(v, 0, shapes.SIZE[::-1]) for v in (first, last))
    seen = before & (last > first).all(1)
    assert seen.sum() > 20
    assert (np.abs(boxes[seen] - np.concatenate([first, last], 1)[seen]) > 0).mean() < 0.03, "but for 0.01 pixels"
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    assert empty[before & (last <= first).any(1)].mean() > 0.9


def test_what_is_not_finite_or_overflows_is_harmless():
    corners = np.tile(np.asarray([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], np.float32), (5, 1, 1))
    corners[0, 0, 0], corners[1, 1, 1], corners[2, 2, 2], corners[3, 0] = np.nan, np.inf, -np.inf, 3e38
    for lens in ("pinhole", "fisheye"):
        boxes, _ = _boxes_and_hits(lens, 1.0, jnp.asarray(corners.reshape(-1, 3)), jnp.arange(15).reshape(-1, 3), 2.6)
        assert (boxes[:3] == 0).all(), "faces that are not finite are dropped"
        assert (boxes[3] >= 0).all() and (boxes[3, 2:] <= shapes.SIZE[::-1]).all()
        assert (boxes[4, 2:] > boxes[4, :2]).all()
