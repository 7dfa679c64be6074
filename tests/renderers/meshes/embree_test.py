"""What pixels see against ray casting by embree (robust mode): ids, barycentrics and depths of real and made meshes.

Embree decides in float32 too, with errors of its own; where the two faces of a disagreement are equally near, or the
pixel lies on an edge of one of them to rounding, neither is wrong. Barycentric coordinates and depth are therefore held
against the float64 intersection of the ray with the face that both found.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from renderers.cameras.camera import Camera
from renderers.cameras.rays import camera_rays
from renderers.meshes.rasterize import rasterize_mesh
from tests.helpers.shared import SHARED
from tests.renderers.meshes import rasterizer_scenes as scenes

AGREE = 0.999  # share of interior pixels with one id
SHARES, PERCENTILE = 1e-4, 99.9
DEPTH = 1e-5  # relative
TIE = 1e-6  # relative difference of depth
ON_EDGE = 1e-4  # of a barycentric coordinate from zero: a hair of an edge
_FILES = sorted(
    path
    for kind in ("classic", "quaternius_glb", "ycb_original", "ycb_glb", "pbr_glb", "formats")
    for path in (SHARED / "data" / "meshes" / kind).rglob("*")
    if path.suffix in (".obj", ".glb")
)
_QUICK = ("spot.obj", "suzanne.obj", "animals_pack__Cow.glb")


def _look(vertices: np.ndarray, size: tuple[int, int], model: str) -> Camera:
    """From above and aside, the whole mesh in view."""
    center = 0.5 * (vertices.min(0) + vertices.max(0))
    radius = np.linalg.norm(vertices - center, axis=1).max()
    forward = -np.asarray([0.45, 0.35, 0.82]) / np.linalg.norm([0.45, 0.35, 0.82])
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, -turn @ (center - 2.6 * radius * forward)
    focal = min(size) * (1.2 if model != "orthographic" else 0.48 / radius)
    return Camera(
        jnp.asarray(pose, jnp.float32), jnp.full(2, focal, jnp.float32),
        jnp.asarray([size[1] / 2, size[0] / 2], jnp.float32), size, model,
    )  # fmt: skip


@functools.cache
def _program(size, model):
    return jax.jit(lambda *a: rasterize_mesh(*a, antialias=False, near=1e-6))


def _cast(vertices, faces, origins, directions):
    """Face of the first hit of each ray, -1 for none."""
    scene = pytest.importorskip("embreex.rtcore_scene").EmbreeScene(robust=True)
    # the geometry belongs to the scene once it is made
    pytest.importorskip("embreex.mesh_construction").TriangleMesh(
        scene, np.ascontiguousarray(vertices[faces], np.float32)
    )
    return scene.run(np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32))


def _intersection(vertices, faces, index, origins, directions):
    """Barycentric coordinates and distance of rays and the planes of given faces; float64."""
    corners = vertices.astype(np.float64)[faces[index]]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(u, v)
    squared = (normal**2).sum(-1)
    slope = (directions * normal).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = ((corners[:, 0] - origins) * normal).sum(-1) / slope
        at = origins + t[:, None] * directions - corners[:, 0]
        b = (np.cross(at, v) * normal).sum(-1) / squared
        c = (np.cross(u, at) * normal).sum(-1) / squared
    return np.stack([1 - b - c, b, c], 1), t


def _padded(rows):
    """Zeros up to a power of two, so that meshes share programs: faces without area, which nothing sees."""
    return jnp.asarray(np.pad(rows, ((0, (1 << max(11, (len(rows) - 1).bit_length())) - len(rows)), (0, 0))))


def _interior(hit):
    """Pixels whose eight neighbours are hit, or not, as they are."""
    padded = np.pad(hit, 1, mode="edge")
    height, width = hit.shape
    around = [padded[y : y + height, x : x + width] == hit for y in range(3) for x in range(3)]
    return np.logical_and.reduce(around)


def _compare(vertices, faces, size, model="pinhole"):
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
    camera = _look(vertices, size, model)
    seen = _program(size, model)(_padded(vertices), _padded(faces), camera)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), camera)
    with jax.enable_x64(True):
        rays = camera_rays(jax.tree.map(jnp.asarray, exact))
        origins, directions = (np.asarray(v).reshape(-1, 3) for v in (rays.origins, rays.directions))
    ours, theirs = np.asarray(seen.face_index).reshape(-1), _cast(vertices, faces, origins, directions)
    interior = (_interior(ours.reshape(size) >= 0) & _interior(theirs.reshape(size) >= 0)).reshape(-1)
    agree = ours == theirs
    both = (ours >= 0) & (theirs >= 0)
    mine, my_t = _intersection(vertices, faces, ours, origins, directions)
    other, other_t = _intersection(vertices, faces, theirs, origins, directions)
    tied = np.abs(my_t - other_t) <= TIE * np.abs(other_t)
    on_edge = np.minimum(mine.min(1), other.min(1)) < ON_EDGE
    good = agree | (both & (tied | on_edge))
    assert interior.sum() > 50 and (ours >= 0).mean() > 0.01
    assert good[interior].mean() >= AGREE, f"{(~good & interior).sum()} of {interior.sum()} pixels see other faces"
    used = both & agree & np.isfinite(mine).all(1)
    error = np.abs(np.asarray(seen.barycentric).reshape(-1, 3)[used] - np.clip(mine[used], 0, 1)).max(1)
    assert np.percentile(error, PERCENTILE) <= SHARES, f"barycentric coordinates are off by {error.max()}"
    forward = directions @ np.asarray(exact.camera_from_world)[2, :3]
    start = origins @ np.asarray(exact.camera_from_world)[2, :3] + np.asarray(exact.camera_from_world)[2, 3]
    depth = start + my_t * forward
    off = np.abs(np.asarray(seen.depth).reshape(-1)[used] / depth[used] - 1)
    assert np.percentile(off, PERCENTILE) <= DEPTH, f"depth is off by {off.max()}"


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        pytest.param(shape, model, marks=[] if model == "pinhole" or shape == "soup" else pytest.mark.slow)
        for model in ("pinhole", "orthographic", "fisheye")
        for shape in ("icosphere", "torus", "soup")
    ],
)
def test_made_shapes_are_seen_as_embree_sees_them(shape, model):
    mesh = {"icosphere": lambda: scenes.icosphere(3), "torus": scenes.torus, "soup": lambda: scenes.soup(300)}[shape]()
    _compare(*mesh, (96, 112), model)


def _meshes():
    for path in _FILES:
        quick = path.name in _QUICK
        yield pytest.param(path, id=path.name, marks=[] if quick else pytest.mark.slow)


@pytest.mark.skipif(not _FILES, reason=f"needs {SHARED}/data/meshes, which is not part of the repository")
@pytest.mark.parametrize("path", list(_meshes()))
def test_meshes_are_seen_as_embree_sees_them(path):
    try:
        loaded = trimesh.load(path, process=False)
        mesh = loaded.to_geometry() if isinstance(loaded, trimesh.Scene) else loaded
        vertices, faces = mesh.vertices, mesh.faces
    except Exception as error:
        pytest.skip(f"trimesh cannot read it: {error}")
    _compare(vertices, faces, (96, 112) if path.name in _QUICK else (384, 384))
