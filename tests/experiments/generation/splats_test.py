"""Splats of the route against what is known: pictures of one splat, surfaces by density, what is enclosed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cadence import Cadence
from experiments.data.blocks import rendering
from experiments.generation import splat_distillation, splat_surface
from experiments.generation.distillation_settings import SplatsConfig
from experiments.generation.guides import OracleGuide
from experiments.generation.routes import splats
from experiments.generation.settings import TextTo3dConfig
from renderers.gaussians.densification import with_capacity
from renderers.gaussians.gaussians import Gaussians, from_points

CONFIG = SplatsConfig(first=64, most=80, steps=10)
see = jax.jit(splat_distillation.see)  # compiled once for all tests: 80 rows, 4 cameras, 8 pixels


def test_a_flat_splat_shows_its_depth_and_its_normal_turned_to_each_camera():
    """Before the front camera at the origin, thin along a direction 30 degrees off the viewing axis."""
    angle = math.radians(30.0)
    splat = Gaussians(
        means=jnp.zeros((1, 3)),
        quaternions=jnp.asarray([[math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0]]),
        log_scales=jnp.log(jnp.asarray([[0.3, 0.3, 0.001]])),
        opacity_logits=jnp.asarray([6.0]),
        sh=jnp.zeros((1, 1, 3)),
    )
    cameras = rendering.ring_cameras(0.0, 0.0, views=4, size=8)
    padded = jax.tree.map(lambda rows: with_capacity(rows, CONFIG.most), splat)
    seen = see(padded, jnp.arange(CONFIG.most) < 1, cameras)
    thin = np.array([math.sin(angle), 0.0, math.cos(angle)])  # z turned about y
    for view, sign in ((0, 1.0), (2, -1.0)):  # the front and the back
        weight = seen.coverage[view, 4, 4]
        assert weight > 0.8
        np.testing.assert_allclose(seen.normal[view, 4, 4] / weight, sign * thin, atol=1e-3)
        np.testing.assert_allclose(seen.depth[view, 4, 4] / weight, rendering.DISTANCE, atol=1e-3)
        np.testing.assert_allclose(seen.color[view, 4, 4] / weight, 0.5, atol=1e-3)


def test_growth_keeps_the_picture_and_counts_up_to_the_capacity():
    state = splat_distillation.fresh_state(CONFIG, seed=0, size=8)
    cameras = rendering.ring_cameras(0.3, 0.2, views=4, size=8)
    before = see(state.gaussians, state.alive, cameras)
    for step in range(3):
        state = splat_distillation.grow(state, jnp.int32(step), config=CONFIG, seed=0)
    after = see(state.gaussians, state.alive, cameras)
    assert int(state.alive.sum()) == CONFIG.most
    assert len(splat_distillation.living(state).means) == CONFIG.most
    assert float(jnp.abs(after.coverage - before.coverage).mean()) < 0.02 * float(before.coverage.mean())


def test_the_surface_by_density_of_a_thin_shell_is_one_closed_ball():
    """Skins thinner than the grid: not a sieve, no second surface inside."""
    radius, rng = 0.3, np.random.default_rng(0)
    normals = rng.normal(size=(1500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    made = from_points(radius * normals, 0 * normals, degree=0, opacity=0.9)
    thin = made.log_scales.at[:, 2].set(math.log(1e-3))
    half = np.cross([0.0, 0.0, 1.0], normals)
    quaternions = np.concatenate([1 + normals[:, 2:], half], 1)  # z to the normal
    shell = jax.tree.map(
        jnp.asarray,
        Gaussians(**{**vars(made), "log_scales": thin, "quaternions": jnp.asarray(quaternions, jnp.float32)}),
    )
    mesh = splat_surface.dense(shell, SplatsConfig(resolution=40))
    reach = np.linalg.norm(np.asarray(mesh.vertices), axis=1)
    cell = 1.04 / 39
    assert reach.min() > radius - 0.5 * cell  # nothing inside
    assert abs(reach.mean() - radius) < 1.5 * cell
    faces = np.asarray(mesh.faces)
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    assert len(mesh.vertices) - len(np.unique(edges, axis=0)) + len(faces) == 2  # Euler's number of one ball


def test_enclosed_is_what_no_way_leads_out_of():
    empty = np.ones((7, 7, 7), bool)
    empty[1:6, 1:6, 1:6] = False
    assert not splat_surface.enclosed(empty).any()
    empty[3, 3, 3:5] = True
    expected = np.zeros_like(empty)
    expected[3, 3, 3:5] = True
    np.testing.assert_array_equal(splat_surface.enclosed(empty), expected)
    empty[3, 2, 3] = empty[3, 1, 3] = True  # open below, where no camera was
    expected[3, 2, 3] = expected[3, 1, 3] = True
    np.testing.assert_array_equal(splat_surface.enclosed(empty), expected)
    empty[3, 3, 5] = True  # the last layer of the wall
    assert not splat_surface.enclosed(empty).any()


class _StopAfter:
    """Asks for a stop once it was polled so many times; leaving is an exception."""

    def __init__(self, polls: float) -> None:
        self._left = polls

    def install(self) -> None:
        pass

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0

    def exit_if_requested(self) -> None:
        if self._left < 0:
            raise SystemExit(75)


@pytest.mark.slow
def test_a_stopped_route_resumes_to_the_same_splats_bit_by_bit(tmp_path):
    settings = SplatsConfig(
        first=64,
        most=96,
        steps=12,
        grow_every=3,
        resolution=24,
        texture=64,
        refinement=1,
        cadence=Cadence(log_every=1, checkpoint_seconds=None),
    )
    config = TextTo3dConfig(prompt="a red box", route="splats", splats=settings)
    resumed = TextTo3dConfig(prompt="a red box", route="splats", splats=settings, resume=True)
    guide = OracleGuide("a red box", count=1, size=8)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = splats.make(guide, config, tmp_path / "whole", _StopAfter(math.inf))
    with pytest.raises(SystemExit):
        splats.make(guide, config, tmp_path / "parts", _StopAfter(7))
    parts = splats.make(guide, resumed, tmp_path / "parts", _StopAfter(math.inf))
    jax.tree.map(np.testing.assert_array_equal, parts.splats, whole.splats)
    np.testing.assert_array_equal(parts.mesh.texture, whole.mesh.texture)
