"""Cameras recovered on the splats of nerf_synthetic's chair, trimmed, at a small size; both methods."""

import dataclasses
import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.splats import camera_search
from experiments.splats.refinement_settings import RefineConfig
from renderers.cameras.camera import Camera
from renderers.cameras.refinement import corrected, differences, disturbed
from renderers.cameras.trajectories import look_at
from renderers.gaussians.formats import read_splats
from renderers.gaussians.rasterize import render

CHAIR = pathlib.Path(__file__).parents[2] / "fixtures/splats/nerf_synthetic_chair.spz"
SIZE = (72, 72)
RADIUS = 4.03  # of nerf_synthetic's cameras, whose field of view this is, too
WHITE = jnp.ones(3)


@functools.cache
def _chair():
    return read_splats(CHAIR)


@functools.cache
def _true():
    position = RADIUS * np.asarray([0.6, -0.64, 0.48]) / np.linalg.norm([0.6, -0.64, 0.48])
    pose = look_at(jnp.asarray(position, jnp.float32), jnp.zeros(3), up=jnp.asarray([0.0, 0.0, 1.0]))
    focal = 0.5 * SIZE[1] / np.tan(0.5 * 0.6911112)
    return Camera(pose, jnp.full(2, focal, jnp.float32), jnp.asarray([36.0, 36.0]), SIZE)


def _problem(seed, image=None):
    rng = np.random.default_rng(seed)
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    wrong = disturbed(
        _true(),
        jnp.asarray(np.deg2rad(1) * axis, jnp.float32),
        jnp.asarray(0.01 * RADIUS * way, jnp.float32),
        jnp.log(jnp.asarray([1.02, 0.98])),
    )
    if image is None:
        image = render(_chair(), _true(), background=WHITE).color
    return camera_search.Problem(
        gaussians=_chair(),
        camera=wrong,
        pivot=jnp.asarray([0.0, 0.0, RADIUS]),
        background=WHITE,
        image=image,
        weight=jnp.ones((*SIZE, 1)),
    )


def _errors(problem, found):
    refined = corrected(problem.camera, jnp.asarray(found.x[-1]), problem.pivot)
    before, after = differences(problem.camera, _true()), differences(refined, _true())
    return np.asarray(before), np.asarray(after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "seeds"),
    [("gauss_newton", (0, 1, 2)), ("gradient", (0,)), pytest.param("gradient", (1, 2), marks=pytest.mark.slow)],
)
def test_recovers_pose_and_focal_lengths(method, seeds):
    """The issue's measure: off by 1 degree, 1% of the distance and 2% in focal length, to a tenth and less of each."""
    config = RefineConfig(method=method, levels=2)
    for seed in seeds:
        problem = _problem(seed)
        found = camera_search.search(problem, config)
        before, after = _errors(problem, found)
        np.testing.assert_allclose(before, [1.0, 0.01 * RADIUS, 0.02], rtol=1e-3)
        assert (after < 0.1 * before).all(), (seed, before, after)
        assert found.factors[-1] == 1 and found.costs[-1] < 1e-2 * found.costs[1]


@pytest.mark.slow
def test_outliers_do_not_move_the_camera():
    """A square of the image shows something else: with Huber's loss the camera stays, with squares it is drawn off."""
    image = np.array(render(_chair(), _true(), background=WHITE).color)
    image[20:44, 8:26] = [0.9, 0.1, 0.6]
    problem = _problem(0, jnp.asarray(image))
    after = {}
    for huber in (0.02, 0.0):
        found = camera_search.search(problem, RefineConfig(levels=2, huber=huber))
        after[huber] = _errors(problem, found)[1]
    assert after[0.02][0] < 0.1 and (after[0.02] < 0.3 * after[0.0]).all(), after


@pytest.mark.slow
def test_what_has_no_weight_does_not_count():
    image = np.array(render(_chair(), _true(), background=WHITE).color)
    image[:, :8] = 0.0  # a rim that no light reached
    problem = _problem(0, jnp.asarray(image))
    weight = jnp.ones((*SIZE, 1)).at[:, :8].set(0.0)
    found = camera_search.search(dataclasses.replace(problem, weight=weight), RefineConfig(levels=2))
    before, after = _errors(problem, found)
    assert (after < 0.1 * before).all()


@pytest.mark.slow
def test_room_for_intersections_grows_until_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr(camera_search, "_capacity", lambda *_: 1024)
    problem, config = _problem(0), RefineConfig(levels=1, steps=2, backend="xla")
    found = camera_search.search(problem, config)
    monkeypatch.undo()
    np.testing.assert_allclose(found.x[-1], camera_search.search(problem, config).x[-1], atol=1e-6)


def test_levels_end_where_images_get_too_small():
    assert camera_search.factors((400, 500), 4) == [8, 4, 2, 1]
    assert camera_search.factors((72, 500), 4) == [2, 1]
    assert camera_search.factors((20, 20), 4) == [1]
