import dataclasses

import numpy as np
import pytest

from experiments.errors import InputError
from experiments.generation import coloring, observations
from experiments.generation.routes import mesh as route
from experiments.generation.settings import MeshConfig, TextTo3dConfig
from renderers.meshes import connectivity
from renderers.meshes.mesh import enclosed_volume
from tests.experiments.generation.views_test import CENTER, Sure, two_colors
from tests.helpers.sphere_rings import cameras, sphere_ring

RADIUS = 0.3
CONFIG = MeshConfig(resolution=32, faces=1500, texture=128)


class NoStop:
    requested = False

    def exit_if_requested(self):
        pass


@pytest.fixture(scope="module")
def ring():
    return sphere_ring(CENTER, RADIUS, two_colors)


@pytest.fixture(scope="module")
def shape(ring):
    return route.surface(ring, cameras(), CONFIG)


def test_surface_is_the_sphere_also_where_no_view_looks(shape):
    radius = np.linalg.norm(np.asarray(shape.vertices) - CENTER, axis=-1)
    assert np.abs(radius - RADIUS).mean() < 0.006 and np.abs(radius - RADIUS).max() < 0.03
    assert connectivity.is_watertight(np.asarray(shape.faces))
    assert float(enclosed_volume(shape.vertices, shape.faces)) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.04)


def test_noisy_views_are_averaged(ring):
    noisy = ring + np.random.default_rng(0).normal(size=ring.shape).astype(np.float32) * 0.05
    mesh = route.surface(np.clip(noisy, -1, 1), cameras(), CONFIG)
    radius = np.linalg.norm(np.asarray(mesh.vertices) - CENTER, axis=-1)
    # A pixel's depth is off by 0.05 * 0.7 = 0.035 m; the surface is nearer to the truth than that
    assert np.abs(radius - RADIUS).mean() < 0.015


def test_texture_has_a_sharp_border_where_the_colors_meet(ring, shape):
    mesh = route.painted(shape, ring, cameras(), CONFIG)
    assert mesh.texture is not None and mesh.uv is not None and mesh.material is not None
    texture = np.asarray(mesh.texture)
    uv = np.asarray(mesh.uv)[np.asarray(mesh.uv_faces)].mean(1)
    column, row = (uv * 128 * [1, -1] + [0, 128]).astype(int).clip(0, 127).T
    places = np.asarray(mesh.vertices)[np.asarray(mesh.faces)].mean(1)
    wrong = np.abs(texture[row, column] - two_colors(places)).max(-1) > 0.15
    across = np.abs(places[:, 0] - CENTER[0])
    assert wrong[across > 0.03].mean() < 0.01  # a pixel is 0.043 m wide
    assert wrong[across > 0.02].mean() < 0.05
    normals = np.asarray(mesh.normals)
    outward = (np.asarray(mesh.vertices) - CENTER) / RADIUS
    assert np.median((normals * outward).sum(-1)) > 0.995


def test_palette_of_plain_colors_and_none_of_a_gradient():
    rng = np.random.default_rng(1)
    paints = np.array([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9], [0.95, 0.95, 0.95]])
    share = np.array([0.6, 0.3, 0.1])
    colors = paints[rng.choice(3, 500, p=share)] + rng.normal(size=(500, 3)) * 0.02
    mixed = 0.5 * colors[:20] + 0.5 * paints[rng.choice(3, 20)]
    found = coloring.palette(np.concatenate([colors, mixed]), np.ones(520))
    assert found is not None and len(found) == 3
    np.testing.assert_allclose(found, paints, atol=0.03)  # in the order of their shares
    gradient = np.linspace(0, 1, 500)[:, None] * [1.0, 0.2, 0.1] + np.linspace(1, 0, 500)[:, None] ** 3 * [
        0.0,
        0.6,
        0.9,
    ]
    assert coloring.palette(gradient, np.ones(500)) is None


def test_colors_of_anything_else_are_blended():
    rng = np.random.default_rng(2)
    places = rng.uniform(-0.3, 0.3, (800, 3)) * [1, 1, 0]
    colors = np.stack([places[:, 0] + 0.5, 0.5 - places[:, 0] * places[:, 1] * 3, places[:, 1] + 0.5], -1)
    up = np.tile([0.0, 0.0, 1.0], (800, 1))
    seen = observations.SurfacePoints(
        points=places, normals=up, colors=colors, weights=np.ones(800), views=np.zeros(800, int), facing=np.ones(800)
    )
    inner = np.abs(places).max(-1) < 0.25
    blended = coloring.color_field(seen, reach=0.02)(places[inner], up[inner])
    assert np.abs(blended - colors[inner]).mean() < 0.02


def test_route_goes_on_with_the_views_of_an_earlier_attempt(ring, tmp_path):
    config = TextTo3dConfig(prompt="x", candidates=1, steps=2, mesh=CONFIG)
    guide = Sure(ring)
    first = route.make(guide, config, tmp_path, NoStop())
    assert (tmp_path / "previews" / "views.png").is_file()
    other = Sure(np.zeros_like(ring))
    again = route.make(other, dataclasses.replace(config, resume=True), tmp_path, NoStop())
    np.testing.assert_array_equal(again.mesh.vertices, first.mesh.vertices)
    (tmp_path / "views.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "shape.ply").unlink()
    with pytest.raises(InputError, match="show nothing"):
        route.make(other, dataclasses.replace(config, resume=True), tmp_path, NoStop())


def test_stop_is_asked_within_stages(ring, tmp_path):
    class Stop(NoStop):
        calls = 0

        def exit_if_requested(self):
            self.calls += 1
            if self.calls > 4:
                raise SystemExit(75)

    stop = Stop()
    with pytest.raises(SystemExit):
        route.make(Sure(ring), TextTo3dConfig(prompt="x", candidates=1, steps=2, mesh=CONFIG), tmp_path, stop)
    assert (tmp_path / "views.npz").is_file() and not (tmp_path / "shape.ply").exists()
