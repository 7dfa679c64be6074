import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import InputError
from experiments.fields import space, views
from experiments.fields.settings import FieldConfig
from renderers.cameras.camera import project
from tests.experiments.fields.captures import ball_capture

_CONFIG = FieldConfig()


def _divided(capture):
    train, _ = views.split(capture, _CONFIG)
    return views.divide(capture, space.find_space(capture, train, unbounded=False), _CONFIG)


@pytest.mark.parametrize("lens", [None, "shared", "each its own"])
def test_rays_of_a_batch_are_those_of_its_pixels_through_the_lens(lens):
    coefficients = np.tile([0.06, -0.08, 1e-3, -2e-3], (6, 1))
    if lens == "each its own":
        coefficients[:, 0] += np.linspace(0, 0.05, 6)
    capture = ball_capture(distortion=None if lens is None else coefficients)
    divided = _divided(capture)
    batch = views.Batches(divided, 1, None)(5, 64)
    stacked = jax.tree.map(jnp.asarray, views.stacked(divided))
    assert lens is None or stacked.distortion.ndim == (1 if lens == "shared" else 2)
    origins, directions = jax.jit(views.batch_rays)(stacked, batch)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-5)
    for i in range(0, 64, 7):
        camera = jax.tree.map(jnp.asarray, divided.cameras[int(batch.views[i])])
        pixel, depth = project(camera, origins[i] + 2 * directions[i])
        np.testing.assert_allclose(pixel, batch.pixels[i], atol=5e-3)
        assert depth > 0


def test_colors_of_a_batch_are_those_of_its_pixels_and_only_training_views_are_drawn():
    divided = _divided(ball_capture())
    draw = views.Batches(divided, 1, None)
    batch = draw(7, 256)
    assert set(np.asarray(batch.views)) == set(divided.train), "every 8th view, the first, is held out"
    for pixel, view, color in zip(
        *(np.asarray(part) for part in (batch.pixels, batch.views, batch.colors)), strict=True
    ):
        column, row = (pixel - 0.5).astype(int)
        assert (divided.images[view][row, column] == color).all()
    again, other = views.Batches(divided, 1, None)(7, 256), draw(8, 256)
    assert (np.asarray(again.pixels) == np.asarray(batch.pixels)).all()
    assert (np.asarray(other.pixels) != np.asarray(batch.pixels)).any()


def test_pixels_are_drawn_evenly_in_and_about_the_silhouette():
    divided = _divided(ball_capture(size=(96, 96)))
    batch = views.Batches(divided, 0, None)(0, 20_000)
    inside = np.asarray(batch.colors)[:, 3] > 0
    images = [divided.images[i][..., 3] for i in divided.train]
    reach = 2 * 6 + 1  # 6% of 96 pixels
    grown = sum(
        np.lib.stride_tricks.sliding_window_view(np.pad(a, 6), (reach, reach)).max((2, 3)).astype(bool).sum()
        for a in images
    )
    wanted = sum((image > 0).sum() for image in images) / grown
    np.testing.assert_allclose(inside.mean(), wanted, atol=4 * np.sqrt(wanted * (1 - wanted) / 20_000))


def test_images_without_anything_are_refused():
    capture = ball_capture()
    divided = dataclasses.replace(_divided(capture), images=tuple(np.zeros_like(image) for image in capture.images))
    with pytest.raises(InputError, match="transparent"):
        views.Batches(divided, 0, None)
