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
