"""The reference of surfel compositing against a numpy evaluation that shares nothing with it, and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.surfels import reference
from tests.renderers.kernels.surfels import brute_force, scenes


@functools.cache
def _compiled():
    return jax.jit(reference.composite, static_argnums=8)


def composite(scene, size=scenes.SIZE, mask=None):
    with jax.enable_x64(True):
        a = {name: jnp.asarray(array, None if name == "radii" else jnp.float64) for name, array in scene.items()}
        rectangles = reference.tile_rectangles(a["means2d"], a["radii"], size)
        probe = jnp.zeros_like(a["means2d"])
        surfels = (a["transforms"], a["means2d"], a["opacities"], a["features"], probe, a["depths"])
        return [np.asarray(v) for v in _compiled()(*surfels, rectangles, mask, size)]


@pytest.mark.parametrize("name", scenes.SCENES)
def test_equals_numpy(name):
    scene = scenes.SCENES[name]()
    image, planes = composite(scene)
    expected = brute_force.blend(scene, scenes.SIZE)
    # float64: only exact hits of a threshold may differ, by the order of operations
    safe = np.minimum(expected.margin, expected.median_margin) > 1e-9
    assert safe.mean() > 0.97
    np.testing.assert_allclose(image[safe], expected.image[safe], atol=1e-12)
    np.testing.assert_allclose(planes[safe], expected.planes[safe], atol=1e-12)


def test_tiles_are_those_that_the_box_meets():
    """A box that ends on a tile's edge does not meet the next tile; one that begins there does."""
    means = jnp.asarray([[24.0, 24.0], [24.0, 24.5], [40.0, 8.0], [-3.0, 20.0], [1e9, 1e9]])
    radii = jnp.asarray([[8, 8], [8, 8], [24, 9], [2, 5], [3, 3]])
    rectangles = reference.tile_rectangles(means, radii, (45, 71))
    expected = [[1, 1, 2, 2], [1, 1, 2, 3], [1, 0, 4, 2], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(rectangles, expected)


def _frontal(n, **changes):
    """Surfels frontally in the middle of pixel (3, 2), of standard deviation 2 pixels across and 1 down."""
    surfels = dict(
        pixels=np.full((n, 2), [3.5, 2.5]),
        scales=np.full((n, 2), [2.0, 1.0]),
        frames=np.broadcast_to(np.eye(3), (n, 3, 3)),
        opacities=np.full(n, 0.5),
        features=np.ones((n, 1)),
        depths=np.arange(n) + 1.0,
    )
    return scenes.scene_of(**surfels | {k: np.asarray(v, np.float64) for k, v in changes.items()}, size=(6, 8))


def test_one_surfel_by_hand():
    scene = _frontal(1, opacities=[0.75], features=[[2.0]], depths=[4.0])
    image, planes = composite(scene, (6, 8))
    np.testing.assert_allclose(image[2, 3, 0], 1.5, rtol=1e-12)
    np.testing.assert_allclose(image[2, 5, 0], 1.5 * np.exp(-0.5), rtol=1e-6)  # M is rounded to float32
    np.testing.assert_allclose(image[4, 3, 0], 1.5 * np.exp(-2.0), rtol=1e-6)
    np.testing.assert_allclose(planes[2, 3], [0.25, 3.0, 0.0, 4.0], atol=1e-12)


def test_the_filter_holds_up_what_is_smaller_than_a_pixel():
    """exp(-r^2), r in pixels, whatever the surfel's own size."""
    for scale in (0.3, 0.01):
        image, _ = composite(_frontal(1, scales=[[scale, scale]]), (6, 8))
        np.testing.assert_allclose(image[2, 4, 0], 0.5 * np.exp(-1.0), rtol=1e-6)
        np.testing.assert_allclose(image[3, 4, 0], 0.5 * np.exp(-2.0), rtol=1e-6)


def test_nothing_is_drawn_of_a_surfel_without_area():
    image, planes = composite(_frontal(2, scales=[[0.0, 1.0], [0.0, 0.0]]), (6, 8))
    assert not image.any() and (planes[..., 0] == 1).all()


def test_planes_of_two_surfels_by_hand():
    """w = 0.4, 0.3; distortion 2 w_1 w_2 (d_2 - d_1); the second is reached by 0.6 of the light and is the median."""
    scene = _frontal(2, opacities=[0.4, 0.5], depths=[2.0, 5.0])
    _, planes = composite(scene, (6, 8))
    expected = [0.3, 0.4 * 2 + 0.3 * 5, 2 * 0.4 * 0.3 * 3, 5.0]
    np.testing.assert_allclose(planes[2, 3], expected, rtol=1e-6)
    _, planes = composite(_frontal(3, opacities=[0.4, 0.5, 0.5], depths=[2.0, 5.0, 9.0]), (6, 8))
    assert planes[2, 3, 3] == 5.0, "the third is reached by 0.3"
    assert composite(_frontal(1, opacities=[0.003]), (6, 8))[1][2, 3, 3] == 0.0


def test_distortion_is_the_weighted_sum_of_distances():
    """The double sum over pairs, which the recursion avoids; it does not change when all depths are shifted."""
    scene = scenes.random_scene(n=60)
    weights = brute_force.blend(scene, scenes.SIZE).weights
    gaps = np.abs(scene["depths"][:, None].astype(np.float64) - scene["depths"][None])
    expected = np.einsum("ihw,jhw,ij->hw", weights, weights, gaps)
    np.testing.assert_allclose(composite(scene)[1][..., 2], expected, atol=1e-11)
    farther = dict(scene, depths=scene["depths"].astype(np.float64) + 7)
    np.testing.assert_allclose(composite(farther)[1][..., 2], expected, atol=1e-11)


def test_masked_pixels_stay_empty_and_others_do_not_change():
    scene = scenes.random_scene(n=60)
    mask = np.random.default_rng(0).uniform(size=scenes.SIZE) < 0.5
    whole, part = composite(scene), composite(scene, mask=jnp.asarray(mask))
    for a, b, empty in zip(whole, part, (np.zeros(3), np.asarray([1.0, 0, 0, 0])), strict=True):
        np.testing.assert_array_equal(a[mask], b[mask])
        assert (b[~mask] == empty).all()
