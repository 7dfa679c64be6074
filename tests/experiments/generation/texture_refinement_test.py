"""Refinement against a guide that wants one colour: what cameras see takes it, the rest stays as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generation import texture_refinement
from experiments.generation.distillation_settings import SplatsConfig
from generators.diffusion.schedules import Cosine
from renderers.meshes.mesh import Mesh, vertex_normals

WANTED = np.array([0.2, 0.6, 0.9], np.float32)


@jax.tree_util.register_static
class Painter:
    """Answers every question with the wanted colour on all of the picture."""

    size, schedule, scale = 16, Cosine(shift=2.0), 1.0

    def clean(self, noisy, t, azimuths, elevations, guidance):
        channels = jnp.concatenate([2 * WANTED - 1, jnp.array([0.0, 0.0, -1.0, 0.2, 1.0])])
        return jnp.broadcast_to(channels, noisy.shape)


def box_with_a_chart_a_side(half=0.35) -> Mesh:
    corners = np.array([[x, y, z] for x in (-half, half) for y in (-half, half) for z in (-half, half)], np.float32)
    # left, right, bottom, top, back, front
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    uv, uv_faces, faces = [], [], []
    for k, (a, b, c, d) in enumerate(quads):
        left, low = (k % 3) / 3 + 0.04, (k // 3) / 2 + 0.04
        uv += [(left, low), (left + 0.25, low), (left + 0.25, low + 0.42), (left, low + 0.42)]
        faces += [(a, b, c), (a, c, d)]
        uv_faces += [(4 * k, 4 * k + 1, 4 * k + 2), (4 * k, 4 * k + 2, 4 * k + 3)]
    vertices, faces = jnp.array(corners), jnp.array(faces, jnp.int32)
    return Mesh(
        vertices,
        faces,
        uv=jnp.array(uv, jnp.float32),
        uv_faces=jnp.array(uv_faces, jnp.int32),
        texture=jnp.full((256, 256, 3), 0.5, jnp.float32),
        normals=vertex_normals(vertices, faces),
    )


@pytest.mark.slow
def test_what_is_seen_takes_the_wanted_color_and_the_bottom_stays():
    mesh = box_with_a_chart_a_side()
    refined = texture_refinement.refine(mesh, Painter(), SplatsConfig(refinement=16), seed=0)
    texture = np.asarray(refined.texture)
    middles = [(row, column) for row in (192, 64) for column in (44, 128, 214)]  # of the charts; row 0 is the top
    found = np.stack([texture[row - 16 : row + 16, column - 12 : column + 12] for row, column in middles])
    left = np.prod(1 - 0.4 * (1 - np.arange(16) / 16))  # of the way, where every step sees a place
    sides, bottom, top = found[[0, 1, 4, 5]], found[2], found[3]
    np.testing.assert_allclose(sides, np.broadcast_to(WANTED + left * (0.5 - WANTED), sides.shape), atol=5e-3)
    np.testing.assert_array_equal(bottom, 0.5)
    assert np.abs(top - WANTED).max() < 0.8 * np.abs(0.5 - WANTED).max()  # few pixels see it all
