import numpy as np
import pytest

from experiments.splats import field_stop


def _pictures(views=12, size=(60, 80), seed=0):
    """Smooth random scenes of like brightness, as a camera sees from many places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(rng.uniform(0.05, 0.3) * x + rng.uniform(0.05, 0.3) * y + rng.uniform(0, 6)) for _ in range(views)]
    return [np.repeat((140 + 60 * wave)[..., None], 3, -1) for wave in waves]


def test_rim_is_found_and_measured_on_the_edge_that_has_it():
    rows, columns = np.ones(60), np.ones(80)
    rows[-1], columns[-3:], columns[0] = 0.45, (0.7, 0.02, 0.0), 0.3
    pictures = [(image * rows[:, None, None] * columns[None, :, None]).astype(np.uint8) for image in _pictures()]
    found = field_stop.estimate(pictures)
    # means of 12 waves differ by some percent from one row to the next
    np.testing.assert_allclose(found.rows, rows, atol=0.04)
    np.testing.assert_allclose(found.columns, columns, atol=0.04)
    assert found.inside == ((0, 59), (1, 77))


def test_whole_photographs_have_none():
    assert field_stop.estimate([image.astype(np.uint8) for image in _pictures()]).is_open


@pytest.mark.parametrize("reason", ["few views", "alpha channel", "dark scene"])
def test_a_rim_is_not_assumed(reason):
    pictures = _pictures(4 if reason == "few views" else 12)
    for image in pictures:
        image[:, : 30 if reason == "dark scene" else 3] *= 0.1
    pictures = [image.astype(np.uint8) for image in pictures]
    if reason == "alpha channel":
        pictures = [np.concatenate([image, image[..., :1]], -1) for image in pictures]
    assert field_stop.estimate(pictures).is_open


def test_a_white_render_behind_the_stop_is_the_stop():
    stop = field_stop.FieldStop(np.array([1, 0.5], np.float32), np.array([0.2, 1, 1], np.float32))
    np.testing.assert_allclose(
        field_stop.through_stop(np.ones((2, 3, 1), np.float32), stop)[..., 0], [[0.2, 1, 1], [0.1, 0.5, 0.5]]
    )
