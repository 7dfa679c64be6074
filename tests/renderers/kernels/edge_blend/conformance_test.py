"""The host kernel and the definition against XLA in float64, which `silhouettes_test` checks against exact areas.

Lenses other than the pinhole are slow rows here; their projections have `cpu_edges_test`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numba as nb
import numpy as np
import pytest

from renderers.kernels.edge_blend.api import blend_outlines
from tests.renderers.kernels.edge_blend import scenes

NEAR = 0.05


@functools.cache
def _compiled(lens, backend):
    """Image, and gradients of values, points and lens."""

    def run(values, points, faces, opposite, index, weights, camera):
        def loss(values, points, camera):
            image = blend_outlines(values, points, faces, opposite, index, camera, NEAR, backend=backend)
            return jnp.sum(weights * image), image

        (_, image), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(values, points, camera)
        return image, gradients

    return jax.jit(run)


def _run(name, lens, backend, dtype=jnp.float32, channels=2):
    values, points, faces, opposite, index, weights = scenes.inputs(name, lens, channels)
    camera = jax.tree.map(lambda leaf: leaf.astype(dtype), scenes.camera(lens))
    floats = (jnp.asarray(array, dtype) for array in (values, points))
    image, (of_values, of_points, of_camera) = _compiled(lens, backend)(
        *floats, faces, opposite, index, jnp.asarray(weights, dtype), camera
    )
    return jax.tree.map(np.asarray, (image, of_values, of_points, of_camera))


@functools.cache
def _truth(name, lens, channels=2):
    with jax.enable_x64(True):
        return _run(name, lens, "xla", jnp.float64, channels)


def _assert_agrees(found, truth):
    assert np.abs(truth[0] - truth[0].round()).max() > 0.1, "the scene has outlines"
    np.testing.assert_allclose(found[0], truth[0], atol=1e-5)
    for value, expected in zip(jax.tree.leaves(found[1:]), jax.tree.leaves(truth[1:]), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    "lens", ["pinhole", *(pytest.param(lens, marks=pytest.mark.slow) for lens in scenes.LENSES if lens != "pinhole")]
)
def test_the_host_kernel_has_the_images_and_gradients_of_float64(lens):
    for name in scenes.SCENES:
        _assert_agrees(_run(name, lens, "cpu"), _truth(name, lens))


@pytest.mark.slow
@pytest.mark.parametrize("lens", ["pinhole", "brown"])
def test_the_definition_differentiated_by_jax_agrees(lens):
    for name in scenes.SCENES:
        with jax.enable_x64(True):
            found = _run(name, lens, "reference", jnp.float64)
        for value, expected in zip(jax.tree.leaves(found), jax.tree.leaves(_truth(name, lens)), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-10 * max(1, np.abs(expected).max()))


def test_a_mask_alone_is_that_of_an_image_with_colours():
    """The host kernel leaves out what only colours need."""
    for name in scenes.SCENES:
        values, points, faces, opposite, index, weights = scenes.inputs(name, "pinhole")
        of_mask = weights * [1.0, 0.0, 0.0]
        run, camera = _compiled("pinhole", "cpu"), scenes.camera("pinhole")
        both = run(values, points, faces, opposite, index, of_mask.astype(np.float32), camera)
        alone = run(values[..., :1], points, faces, opposite, index, weights[..., :1], camera)
        np.testing.assert_array_equal(alone[0][..., 0], both[0][..., 0])
        np.testing.assert_allclose(alone[1][1], both[1][1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(alone[1][2].focal, both[1][2].focal, rtol=1e-6, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_threads():
    threads, results = nb.get_num_threads(), []
    try:
        for count in (1, threads):
            nb.set_num_threads(count)
            results.append(_run("solid", "brown", "cpu"))
    finally:
        nb.set_num_threads(threads)
    for one, many in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(one, many)


def test_batches_are_one_scene_after_the_other():
    values, points, faces, opposite, index, weights = scenes.inputs("solid", "pinhole")
    moved = np.stack([points, points + np.float32(0.004)])
    run, camera = _compiled("pinhole", "cpu"), scenes.camera("pinhole")
    image, (_, of_points, _) = jax.vmap(run, (None, 0, None, None, None, None, None))(
        values, moved, faces, opposite, index, weights, camera
    )
    for k in range(2):
        expected = run(values, moved[k], faces, opposite, index, weights, camera)
        np.testing.assert_array_equal(image[k], expected[0])
        np.testing.assert_array_equal(of_points[k], expected[1][1])


def test_hostile_meshes_change_nothing_out_of_bounds():
    """Vertices that are not finite, indices outside, faces that nobody has seen: finite images, no gradient is NaN."""
    values, points, faces, opposite, index, weights = scenes.inputs("solid", "pinhole")
    bad_points, bad_faces, bad_opposite = points.copy(), faces.copy(), opposite.copy()
    bad_points[0], bad_points[1] = np.nan, [np.inf, 0, 2]
    bad_points[7] = [1e30, -1e30, 3]
    bad_faces[0], bad_faces[1, 2], bad_faces[8] = [-5, 2, 4], 1 << 30, [2, 3, 7]
    bad_opposite[2], bad_opposite[3] = 1 << 30, -7
    index = np.where(index == 2, 1 << 30, index)
    run, camera = _compiled("pinhole", "cpu"), scenes.camera("pinhole")
    image, gradients = run(values, bad_points, bad_faces, bad_opposite, index, weights, camera)
    for array in (image, *jax.tree.leaves(gradients)):
        assert np.isfinite(array).all()


def test_gradients_of_the_host_kernel_are_differences_of_exact_areas():
    """Of a convex polygon in the image: sum of the mask by each corner, against the polygon's area in float64."""
    _, points, faces, opposite, index, _ = (jnp.asarray(v) for v in scenes.inputs("polygon", "orthographic"))
    camera = scenes.camera("orthographic")
    hard = (index >= 0).astype(jnp.float32)[..., None]

    def total(points):
        return jnp.sum(blend_outlines(hard, points, faces, opposite, index, camera, NEAR, backend="cpu"))

    value, found = jax.jit(jax.value_and_grad(total))(points)
    x, y = (np.asarray(points[:5, :2], float) * np.asarray(camera.focal, float)).T
    area = 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))
    slopes = 0.5 * np.stack([np.roll(y, -1) - np.roll(y, 1), np.roll(x, 1) - np.roll(x, -1)], 1)
    assert float(value) == pytest.approx(abs(area), rel=1e-5)
    expected = np.sign(area) * slopes * np.asarray(camera.focal, float)
    np.testing.assert_allclose(found[:5, :2], expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found[:, 2], 0)


def test_a_camera_has_gradients_in_its_lens_only():
    *_, of_camera = _run("solid", "fisheye", "cpu")
    for field in dataclasses.fields(of_camera):
        if field.name in ("focal", "principal", "distortion"):
            assert np.abs(getattr(of_camera, field.name)).max() > 0, field.name
    np.testing.assert_array_equal(of_camera.camera_from_world, 0)
