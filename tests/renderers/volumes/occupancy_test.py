"""Occupancy grids: what they remember, what they must not lose, and samples that see what dense ones see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera, project
from renderers.cameras.rays import camera_rays
from renderers.cameras.trajectories import look_at
from renderers.volumes import occupancy, packed, quadrature, render
from tests.helpers.records import assert_record

BOX = jnp.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
STEP = 0.05


def ball(points):
    """Density of a soft ball of radius 0.5."""
    return 20.0 * jax.nn.sigmoid(40 * (0.5 - jnp.linalg.norm(points, axis=-1)))


def field(points, directions):
    return ball(points), 0.5 + 0.5 * jnp.sin(3 * points + directions)


def camera(position=(0.3, 0.5, 2.5), model="pinhole", focal=20.0):
    pose = look_at(jnp.array(position), jnp.zeros(3))
    return Camera(pose, jnp.full(2, focal), jnp.array([8.0, 6.0]), (12, 16), model)


def rays():
    seen = camera_rays(camera())
    return seen.origins.reshape(-1, 3), seen.directions.reshape(-1, 3)


@functools.cache
def updated():
    grid = occupancy.full_grid(BOX, resolution=16, levels=2)
    update = jax.jit(lambda key, grid: occupancy.update_all(key, grid, ball, threshold=0.01, chunk=1000))
    for i in range(3):
        grid = update(jax.random.key(i), grid)
    return grid


@functools.cache
def sampler(capacity, jitter=False):
    return jax.jit(
        lambda grid, o, d: occupancy.occupied_samples(
            jax.random.key(0), grid, o, d, step=STEP, num_steps=150, capacity=capacity, jitter=jitter, backend="xla"
        )
    )


@functools.cache
def drawer(scale=1.0):
    """Pictures of a field that many times as dense."""
    scaled = lambda p, d: (scale * field(p, d)[0], field(p, d)[1])  # noqa: E731
    return jax.jit(lambda o, d, s: render.render_packed(scaled, o, d, s, background=jnp.ones(3)))


def test_cells_are_where_their_points_are():
    grid = occupancy.full_grid(BOX * 1.5 + 0.2, resolution=4, levels=3)
    assert_record(grid)
    cells = jnp.arange(grid.density.size, dtype=jnp.int32)
    points = occupancy.cell_points(grid, cells, jax.random.uniform(jax.random.key(0), (len(cells), 3)))
    finest = np.asarray(occupancy.cell_of(points, grid.box, grid.density.shape)[0])
    level = np.asarray(cells) // 64
    # the middle of a coarser level belongs to a finer one, and is never occupied
    coarse = (level > 0) & (np.abs((np.asarray(points) - 0.2) / 1.5).max(-1) < 2.0 ** (level - 1))
    np.testing.assert_array_equal(coarse, ~np.asarray(grid.occupied).ravel())
    assert (finest[~coarse] == np.asarray(cells)[~coarse]).all() and (finest[coarse] // 64 < level[coarse]).all()
    np.testing.assert_allclose(occupancy.outer_box(grid), jnp.array([[-1.0] * 3, [1.0] * 3]) * 6 + 0.2, rtol=1e-6)


@pytest.mark.slow
def test_cells_with_matter_are_occupied_and_others_are_left_out():
    grid = updated()
    points = np.random.default_rng(0).uniform(-2, 2, (20000, 3)).astype(np.float32)
    found, radius = np.asarray(occupancy.is_occupied(grid, jnp.asarray(points))), np.linalg.norm(points, axis=-1)
    reach = 0.5 + 0.2 + 3**0.5 * 0.125  # where the density falls to 0.01, and the diagonal of a cell
    assert found[radius < 0.5].all() and not found[radius > reach].any()
    assert not occupancy.is_occupied(grid, jnp.array([[9.0, 0.0, 0.0]])).any()


def test_memory_fades_and_the_threshold_is_the_mean_where_that_is_less():
    grid = occupancy.full_grid(BOX, resolution=4)
    once = occupancy.update_all(jax.random.key(0), grid, lambda p: jnp.where(p[:, 0] > 0, 8.0, 0.0), threshold=1.0)
    np.testing.assert_array_equal(once.occupied[0], np.broadcast_to(np.arange(4)[:, None, None] >= 2, (4, 4, 4)))
    later = once
    for i in range(3):
        later = occupancy.update_all(jax.random.key(i), later, lambda p: 0 * p[:, 0], threshold=1.0, decay=0.5)
    np.testing.assert_allclose(later.density[0, 3], 1.0)
    assert later.occupied[0, 3].all(), "1 is above the mean, 0.5"
    assert not occupancy.update_all(jax.random.key(9), grid, lambda p: 0 * p[:, 0], threshold=1.0).occupied.any()


@pytest.mark.slow
def test_updates_of_some_cells_ask_half_of_them_among_the_occupied_and_are_repeatable():
    grid, asked = updated(), []

    def density(points):
        asked.append(points)
        return jnp.full(len(points), 7.0)

    after = occupancy.update_some(jax.random.key(4), grid, density, 600, threshold=0.5)
    again = occupancy.update_some(jax.random.key(4), grid, density, 600, threshold=0.5)
    jax.tree.map(np.testing.assert_array_equal, after, again)
    inside = np.asarray(occupancy.is_occupied(grid, asked[0]))
    assert inside[300:].all() and inside[:300].mean() < 0.3, "the first half is drawn anywhere"
    changed = np.asarray(after.density != grid.density)
    assert 0 < changed.sum() <= 600 and (np.asarray(after.density)[changed] >= 7 - 1e-6).all()
    empty = occupancy.OccupancyGrid(density=grid.density, occupied=jnp.zeros_like(grid.occupied), box=BOX)
    assert np.isfinite(occupancy.update_some(jax.random.key(0), empty, density, 8, threshold=0.5).density).all()


@pytest.mark.slow
def test_no_cell_that_a_camera_sees_is_lost_and_others_stay_empty_for_good():
    grid = occupancy.full_grid(BOX, resolution=16, levels=2)
    cameras = [
        camera((1.2, 0.3, 1.0)),
        camera((0.0, 0.4, -1.5), "fisheye", 12.0),
        camera((1.0, 1.0, 1.0), "orthographic", 30.0),
    ]
    points = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (30000, 3)), jnp.float32)
    for one in cameras:
        kept = occupancy.without_unseen(grid, [one])
        pixels, depth = project(one, points)
        inside = ((pixels >= 0) & (pixels < jnp.array([[16.0, 12.0]]))).all(-1) & (depth > 0)
        assert inside.sum() > 300
        assert occupancy.is_occupied(kept, points)[inside].all(), one.model
        assert not kept.occupied.all(), "some cells are behind, or beside"
    again = occupancy.update_all(jax.random.key(0), kept, lambda p: jnp.full(len(p), 5.0), threshold=0.1)
    np.testing.assert_array_equal(again.occupied, kept.occupied)


@pytest.mark.slow
def test_where_all_is_occupied_samples_are_dense_ones():
    """Same picture as even steps in rows, gradient to the density included."""
    origins, directions = rays()
    grid = occupancy.full_grid(BOX, resolution=8)
    samples = sampler(1 << 15)(grid, origins, directions)
    assert_record(samples)
    assert samples.overflow == 0 and samples.complete.all()
    near, far, hit = occupancy.ray_box(origins, directions, BOX)
    edges = near[:, None] + STEP * jnp.arange(81.0)[None]
    within = 0.5 * (edges[:, 1:] + edges[:, :-1]) < far[:, None]

    def in_rows(scale):
        points = origins[:, None] + 0.5 * (edges[:, 1:] + edges[:, :-1])[..., None] * directions[:, None]
        density = jnp.where(within & hit[:, None], ball(points) * scale, 0.0)
        weights, _ = quadrature.weights_from_density(density, jnp.diff(edges))
        along = jnp.broadcast_to(directions[:, None], points.shape)
        return quadrature.composite(weights, field(points, along)[1])

    def in_buffer(scale):
        thicker = lambda p, d: (ball(p) * scale, field(p, d)[1])  # noqa: E731
        return render.render_packed(thicker, origins, directions, samples).color

    @functools.partial(jax.jit, static_argnums=0)
    def with_slope(function, scale):
        color, pull = jax.vjp(function, scale)
        return color, pull(jnp.ones_like(color))[0]

    for scale in (0.1, 1.0):
        rows, slope = with_slope(in_rows, scale)
        buffer, found = with_slope(in_buffer, scale)
        np.testing.assert_allclose(buffer, rows, atol=2e-4)
        np.testing.assert_allclose(found, slope, rtol=1e-3)


def test_leaving_out_empty_cells_changes_no_picture():
    origins, directions = rays()
    dense = sampler(1 << 15)(occupancy.full_grid(BOX, resolution=16, levels=2), origins, directions)
    sparse = sampler(1 << 15)(updated(), origins, directions)
    assert sparse.counts.sum() < 0.5 * dense.counts.sum()
    seen = [drawer()(origins, directions, s) for s in (dense, sparse)]
    # what is left out has density below 0.01 where it was asked, at three points of a cell, along some 0.5 of a ray
    np.testing.assert_allclose(seen[1].color, seen[0].color, atol=0.02)
    opaque = np.asarray(seen[0].opacity) > 0.9
    assert opaque.sum() > 20
    np.testing.assert_allclose(seen[1].median_distance[opaque], seen[0].median_distance[opaque], atol=2e-3)


def test_overflow_and_rays_that_ran_out_are_reported():
    origins, directions = rays()
    grid = occupancy.full_grid(BOX, resolution=8)
    whole = sampler(1 << 15)(grid, origins, directions)
    total = int(whole.counts.sum())
    part = sampler(1000)(grid, origins, directions)
    assert part.overflow == total - 1000 and part.counts.sum() == 1000
    np.testing.assert_array_equal(part.complete, np.cumsum(whole.counts) <= 1000)
    short = occupancy.occupied_samples(
        jax.random.key(0), grid, origins, directions, step=STEP, num_steps=5, capacity=1 << 15, backend="xla"
    )
    assert (short.complete == (short.counts < 5)).mean() > 0.95 and short.counts.max() == 5


def test_jitter_moves_whole_rays_and_leaves_the_expected_picture():
    origins, directions = rays()
    grid = occupancy.full_grid(BOX, resolution=8)
    even, moved = sampler(1 << 15)(grid, origins, directions), sampler(1 << 15, True)(grid, origins, directions)
    first = np.flatnonzero(np.diff(np.asarray(even.ray_index), prepend=-1) > 0)[:10]
    ray = even.ray_index[first]
    shift = moved.starts[np.searchsorted(moved.ray_index, ray)] - even.starts[first]
    assert ((shift >= -1e-6) & (shift <= STEP + 1e-6)).all() and np.ptp(shift) > 0.2 * STEP


@pytest.mark.slow
def test_what_cannot_be_seen_is_pruned_without_changing_the_picture():
    origins, directions = rays()
    samples = sampler(1 << 15)(updated(), origins, directions)
    points, _ = packed.points_and_directions(origins, directions, samples)
    keep = jax.jit(lambda d, s: occupancy.visible(d, s, alpha_threshold=1e-3, early_stop=1e-4))(
        10 * ball(points), samples
    )
    pruned = jax.jit(lambda s, k: packed.prune(s, k, 1 << 12))(samples, keep)
    assert pruned.overflow == 0 and pruned.counts.sum() < 0.6 * samples.counts.sum()
    seen = [drawer(10.0)(origins, directions, s).color for s in (samples, pruned)]
    np.testing.assert_allclose(seen[1], seen[0], atol=5e-3)
