"""The route's field against what is known: a ball of matter seen by rings, its surface, room for samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import rendering
from experiments.generation import field_distillation
from experiments.generation.distillation_settings import NerfConfig
from experiments.generation.routes.nerf import fitting_capacity
from renderers.fields import normals
from renderers.volumes import packed

CONFIG = NerfConfig(levels=2, coarsest=4, finest=8, log2_rows=8, width=8, samples=48, occupancy=16)


@pytest.fixture(scope="module")
def state():
    fresh = field_distillation.fresh_state(config=CONFIG, seed=0, size=8)
    return field_distillation.look_around(fresh, jnp.int32(0), config=CONFIG, seed=0)


@pytest.mark.slow
def test_the_blob_is_seen_where_it_is_with_normals_that_point_outwards(state):
    """Against the integral along each ray by the same formula at 2,000 places, without grids, pruning or packing."""
    cameras = rendering.ring_cameras(0.3, 0.2, views=4, size=8)

    @jax.jit
    def both(state):
        field = field_distillation.merged(state.params, CONFIG)
        key = jax.random.key(0)
        seen, costs, wanted = field_distillation.see(field, state.grid, cameras, key, config=CONFIG, capacity=1 << 13)
        return seen, costs, wanted, *_by_brute_force(field, cameras, key)

    seen, costs, wanted, coverage, depth, facing = both(state)
    assert int(wanted) <= 1 << 13
    assert float(coverage.max()) > 0.9  # the blob is there
    np.testing.assert_allclose(seen.coverage, coverage, atol=0.04)
    np.testing.assert_allclose(seen.depth, depth, atol=0.06)
    np.testing.assert_allclose(seen.normal, facing, atol=0.06)
    assert 0 <= float(costs.orientation) < 0.02  # what is seen of a blob faces the eye


def _by_brute_force(field, cameras, key):
    from renderers.cameras.camera import resize
    from renderers.cameras.rays import camera_rays

    height, width = cameras.size
    row, column = jax.random.randint(jax.random.split(key)[0], (2,), 0, 2)
    rays = jax.vmap(lambda camera: camera_rays(resize(camera, (2 * height, 2 * width))))(cameras)
    origins, directions = (
        part.reshape(-1, height, 2, width, 2, 3)[:, :, row, :, column].reshape(-1, 3)
        for part in (rays.origins, rays.directions)
    )
    edges = jnp.linspace(1.0, 2.9, 401)
    t = 0.5 * (edges[1:] + edges[:-1])
    points = (origins[:, None] + t[None, :, None] * directions[:, None]).reshape(-1, 3)
    density = field.density(points).reshape(-1, len(t))
    facing = normals.density_normals(field.density, points).reshape(-1, len(t), 3)
    step = edges[1] - edges[0]
    weights = jnp.exp(-step * (jnp.cumsum(density, 1) - density)) * (1 - jnp.exp(-step * density))
    axis = jnp.repeat(cameras.camera_from_world[:, 2, :3], height * width, 0)
    along = jnp.sum(axis * directions, -1)
    shape = (4, height, width)
    return (
        weights.sum(1).reshape(shape),
        (along * jnp.sum(weights * t[None], 1)).reshape(shape),
        jnp.sum(weights[..., None] * facing, 1).reshape(*shape, 3),
    )


class Ball:
    """Matter of one density in a ball about the origin."""

    def __init__(self, radius, density):
        self._radius, self._density = radius, density

    def density(self, points):
        return self._density * (jnp.linalg.norm(points, axis=-1) < self._radius)

    def __call__(self, points, directions):
        return self.density(points), 0.5 * jnp.ones_like(points)


def test_rays_end_on_an_opaque_wall_on_average():
    """Whatever the steps: in a ball of 20,000 per metre light goes 0.05 mm; a step has 36 mm, half of one 18."""
    from renderers.cameras.rays import camera_rays

    cameras, radius = rendering.ring_cameras(0.3, 0.2, views=4, size=12), 0.35
    grid = field_distillation.fresh_state(config=CONFIG, seed=0, size=8).grid

    @jax.jit
    def mean_of_draws(key):
        def draw(key):
            ball = Ball(radius, 2e4)
            seen = field_distillation.see(ball, grid, cameras, key, config=CONFIG, capacity=1 << 14, centered=True)[0]
            return seen.depth, seen.coverage

        return [jnp.mean(part, 0) for part in jax.lax.map(draw, jax.random.split(key, 24))]

    depth, coverage = mean_of_draws(jax.random.key(1))
    rays = jax.vmap(camera_rays)(cameras)
    along = -jnp.sum(rays.origins * rays.directions, -1)
    nearest = jnp.sum(rays.origins**2, -1) - along**2
    hit = along - jnp.sqrt(jnp.maximum(radius**2 - nearest, 0.0))
    axis = cameras.camera_from_world[:, 2, :3][:, None, None]
    truth = hit * jnp.sum(axis * rays.directions, -1)
    inner = nearest < (0.9 * radius) ** 2
    np.testing.assert_allclose(np.asarray(coverage)[inner], 1.0, atol=1e-4)
    off = np.asarray(depth - truth)[inner]
    assert abs(off.mean()) < 0.0015  # a draw is off by 10 mm, 24 draws of some 100 rays by 0.2
    assert np.abs(off).max() < 0.012


@pytest.mark.parametrize("density", [0.01, 0.9, 1.2, 30.0, 1e4, 1e12])
def test_light_that_a_step_stops_ends_where_the_exponential_law_says(density):
    start, length = 0.7, 0.03
    samples = packed.pack(jnp.full((1, 1), start), jnp.full((1, 1), start + length), jnp.ones((1, 1), bool), 1)
    ends = jax.jit(field_distillation.endings)
    fine = start + length * (np.arange(200_000) + 0.5) / 200_000
    law = np.exp(-density * (fine - fine[0]))
    np.testing.assert_allclose(
        ends(jnp.full(1, density), samples)[0], np.sum(fine * law) / np.sum(law), atol=2e-7, rtol=0
    )
    slope = jax.jit(jax.grad(lambda d: ends(d[None], samples)[0]))(jnp.float32(density))
    assert np.isfinite(slope) and slope <= 0  # the denser, the earlier


def test_room_for_samples_follows_what_rays_ask_for_in_few_sizes():
    assert fitting_capacity(1 << 16, 1 << 16) == 1 << 16
    assert fitting_capacity(1 << 14, (1 << 14) + 1) == 1 << 16
    assert fitting_capacity(1 << 16, 13_000) == 1 << 14
    assert fitting_capacity(1 << 16, 16_000) == 1 << 16  # would crowd the smaller one
    sizes = {fitting_capacity(1 << 16, wanted) for wanted in range(1, 1 << 18, 997)}
    assert len(sizes) <= 3


def test_settings_say_which_number_is_out_of_range():
    with pytest.raises(ValueError, match=r"nerf\.width must be 1 \.\. 4096, got 0"):
        dataclasses.replace(CONFIG, width=0)
