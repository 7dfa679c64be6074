"""Texture look-up against its definition, mip levels against exact areas, the sRGB curve against its inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes.textures import build_mips, linear_from_srgb, sample_levels, sample_texture, srgb_from_linear
from tests.helpers.gradients import assert_gradients_match

TEXTURE = np.random.default_rng(0).uniform(size=(5, 7, 2))


def bilinear(texture, u, v, wrap):
    """One sample as the definition has it: the four nearest texel centres weighted by distance."""
    height, width, _ = texture.shape
    x, y = u * width - 0.5, (1 - v) * height - 0.5

    def texel(column, row):
        indices = []
        for index, count in ((row, height), (column, width)):
            if wrap == "clamp":
                index = min(max(index, 0), count - 1)
            elif wrap == "repeat":
                index %= count
            else:
                index %= 2 * count
                index = min(index, 2 * count - 1 - index)
            indices.append(index)
        return texture[tuple(indices)]

    left, top = int(np.floor(x)), int(np.floor(y))
    return sum(
        (1 - abs(x - column)) * (1 - abs(y - row)) * texel(column, row)
        for column in (left, left + 1)
        for row in (top, top + 1)
    )


@pytest.mark.parametrize("wrap", ["repeat", "clamp", "mirror"])
def test_look_up_is_bilinear_between_texel_centres(wrap):
    uv = np.random.default_rng(1).uniform(-1.6, 2.4, (40, 2))
    found = sample_texture(jnp.asarray(TEXTURE, jnp.float32), jnp.asarray(uv, jnp.float32), wrap=wrap)
    np.testing.assert_allclose(found, [bilinear(TEXTURE, u, v, wrap) for u, v in uv], atol=2e-5)


def test_the_first_row_is_the_top_and_texel_centres_are_at_one_half():
    texture = jnp.asarray(TEXTURE, jnp.float32)
    uv = jnp.asarray([[0.5 / 7, 1 - 0.5 / 5], [6.5 / 7, 0.5 / 5]])
    for filter in ("linear", "nearest"):
        np.testing.assert_allclose(
            sample_texture(texture, uv, filter=filter), texture[jnp.asarray([0, 4]), jnp.asarray([0, 6])], atol=1e-6
        )


@pytest.mark.parametrize("filter", ["linear", "nearest"])
def test_gradients_of_look_up_match_differences(filter):
    uv = np.random.default_rng(2).uniform(-0.2, 1.3, (6, 2))
    with jax.enable_x64(True):
        texture = jnp.asarray(TEXTURE)
        level = jnp.asarray(np.random.default_rng(3).uniform(0.1, 1.9, 6))
        mips = build_mips(texture)
        assert_gradients_match(lambda t: sample_levels(build_mips(t), jnp.asarray(uv), level, filter=filter), texture)
        if filter == "linear":
            assert_gradients_match(lambda x, at: sample_levels(mips, x, at), jnp.asarray(uv), level)


def test_mips_keep_the_mean_and_each_texel_is_the_mean_of_its_area():
    texture = jnp.asarray(TEXTURE, jnp.float32)
    levels = build_mips(texture)
    assert [level.shape[:2] for level in levels] == [(5, 7), (2, 3), (1, 1)]
    for level in levels:
        np.testing.assert_allclose(jnp.mean(level, (0, 1)), TEXTURE.mean((0, 1)), atol=1e-6)

    def overlap(count, half):
        """Share of each source row in each of the half as many."""
        edges = np.arange(half + 1) * count / half
        rows = np.arange(count)
        shared = np.minimum(edges[1:, None], rows + 1) - np.maximum(edges[:-1, None], rows)
        return np.maximum(shared, 0) * half / count

    expected = np.einsum("ia,jb,abc->ijc", overlap(5, 2), overlap(7, 3), TEXTURE)
    np.testing.assert_allclose(levels[1], expected, atol=1e-6)


def test_the_level_is_that_of_the_footprint():
    """A ramp of constant images tells the level: n texels a pixel is level log2(n), by the longer axis."""
    levels = tuple(jnp.full((2 ** (5 - k), 2 ** (5 - k), 1), float(k)) for k in range(6))
    turn = np.asarray([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    for longer, shorter, anisotropy, expected in (
        (4, 4, 1, 2.0),
        (8, 2, 1, 3.0),
        (8, 2, 4, 1.0),
        (8, 2, 2, 2.0),
        (0.3, 0.1, 1, 0.0),
    ):
        footprint = jnp.asarray(turn @ np.diag([longer, shorter]) @ turn, jnp.float32)[None] / 32
        found = sample_texture(
            levels[0], jnp.asarray([[0.3, 0.6]]), footprint=footprint, mips=levels, anisotropy=anisotropy
        )
        assert float(found[0, 0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_anisotropic_samples_average_along_the_longer_axis():
    ramp = jnp.broadcast_to(jnp.arange(64.0).reshape(1, 64, 1), (64, 64, 1))
    footprint = jnp.asarray([[[8.0, 0.0], [0.0, 1.0]]]) / 64
    uv = jnp.asarray([[0.5, 0.5]])
    sharp = sample_texture(ramp, uv, footprint=footprint, anisotropy=8)
    assert float(sharp[0, 0]) == pytest.approx(31.5, abs=1e-4)
    spike = jnp.zeros((64, 64, 1)).at[:, 32].set(1.0)
    mean = sample_texture(spike, uv, footprint=footprint, anisotropy=8)
    assert float(mean[0, 0]) == pytest.approx(1 / 8, abs=0.03)  # one column of eight


def test_the_srgb_curve_has_its_published_values_and_inverse():
    display = jnp.linspace(-0.2, 1.2, 57)
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(display)), display, atol=2e-6)
    # IEC 61966-2-1 at 8 bits: 188 is half the light of 255, 0.04045 the joint
    assert float(linear_from_srgb(jnp.asarray(188 / 255))) == pytest.approx(0.5029, abs=1e-4)
    assert float(linear_from_srgb(jnp.asarray(0.04045))) == pytest.approx(0.0031308, abs=1e-7)
    for function in (linear_from_srgb, srgb_from_linear):
        slopes = jax.vmap(jax.grad(function))(jnp.asarray([0.0, 1e-9, 0.003, 0.5, 1.0]))
        assert np.isfinite(slopes).all() and (slopes > 0).all()


def test_coordinates_that_are_not_finite_do_no_harm():
    found = sample_texture(
        jnp.ones((4, 4, 1)), jnp.asarray([[jnp.inf, 0.5], [jnp.nan, 0.5], [1e30, 0.5]]), filter="nearest"
    )
    np.testing.assert_array_equal(found, 1.0)
