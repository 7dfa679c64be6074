"""How well objects that no training saw are rebuilt: surface, volume, and eight views that the network was not given.

Distances are in metres; objects fill most of a cube of 0.95 m, so that a threshold of 0.02 is about 2 % of the longest
side. F-score and Chamfer-L1 of `renderers.meshes.metrics` between 10,000 points of either surface; volume IoU at 20,000
uniform points of the object's box widened by 10 %, from the signs of the network's distance and of the exact one. PSNR
of base colours without light on white, 64 x 64 pixels, from two rings of four cameras: azimuths 45, 135, ... at
elevation 35 and 0, 90, ... at elevation -10. An object of which nothing is made has F-score 0 and Chamfer distance 1 m,
and is seen as white.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.blocks import geometry, rendering
from experiments.data.blocks.descriptions import Split
from experiments.data.blocks.solids import Assembly
from experiments.errors import InputError
from experiments.prior.rings import make_rings
from experiments.single_pass import data, reconstruct
from experiments.single_pass.weights import SinglePass
from renderers.cameras.camera import Camera
from renderers.meshes.mesh import Mesh
from renderers.meshes.metrics import chamfer_l1, f_score, occupancy_iou
from renderers.meshes.render import render_mesh
from renderers.meshes.sampling import sample_surface
from renderers.meshes.textures import linear_from_srgb
from renderers.metrics import psnr

THRESHOLD = 0.02  # metres
_POINTS, _PROBES, _PIXELS = 10_000, 20_000, 64
_NOTHING = 1.0  # metres, Chamfer distance of an object that is not there


def unseen_cameras(size: int = _PIXELS) -> list[Camera]:
    """The eight cameras that quality is measured from."""
    rings = [
        rendering.ring_cameras(azimuth, math.radians(elevation), views=4, size=size)
        for azimuth, elevation in ((math.pi / 4, 35.0), (0.0, -10.0))
    ]
    return [
        Camera(ring.camera_from_world[k], ring.focal[k], ring.principal[k], ring.size)
        for ring in rings
        for k in range(4)
    ]


def evaluate(
    trained: SinglePass,
    seed: int,
    split: Split,
    count: int,
    *,
    resolution: int = 64,
    told: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, float]:
    """Means over the first objects of a split, from four whole canonical views and from one photograph of the front.

    Args:
      trained: network.
      seed: of the world.
      split: of the world.
      count: objects.
      resolution: nodes along a side of the grids that surfaces are extracted from.
      told: called with objects done, objects, before each.

    Returns:
      `views_NAME` and `image_NAME` for NAME in f_score, chamfer, iou, psnr.
    """
    rings = make_rings(seed, split, range(count), size=trained.settings.size, canonical=1.0)
    cameras = rendering.ring_cameras(0.0, rendering.ELEVATION, views=4, size=trained.settings.size)
    front = jax.tree.map(lambda leaf: leaf[:1], cameras)
    found: dict[str, list[float]] = {}
    for row, assembly in enumerate(data.on_host(seed, split, range(count))):
        told(row, count)
        views = np.asarray(rendering.from_bytes(rings.views[row]))
        for name, planes in (
            ("views", reconstruct.planes_of(trained, views, cameras)),
            ("image", reconstruct.planes_of(trained, views[:1], front, whole=np.zeros(1, bool))),
        ):
            for key, value in measures(trained, planes, assembly, resolution=resolution, seed=row).items():
                found.setdefault(f"{name}_{key}", []).append(value)
    told(count, count)
    return {name: float(np.mean(values)) for name, values in found.items()}


def measures(
    trained: SinglePass, planes, assembly: Assembly, *, resolution: int = 64, seed: int = 0
) -> dict[str, float]:
    """F-score, Chamfer distance, volume IoU and PSNR of one object, see the module."""
    rng = np.random.default_rng(seed)
    low, high = geometry.bounds(assembly)
    probes = (low + high) / 2 + (rng.random((_PROBES, 3)) - 0.5) * 1.1 * (high - low)
    inside = np.asarray(reconstruct.distances_at(trained, planes, jnp.asarray(probes, jnp.float32))) < 0
    iou = occupancy_iou(inside, geometry.inside(assembly, probes))
    try:
        mesh: Mesh | None = reconstruct.surface(trained, planes, resolution=resolution)
    except InputError:
        mesh = None
    if mesh is None or not len(mesh.faces):
        return {"f_score": 0.0, "chamfer": _NOTHING, "iou": iou, "psnr": _seen_psnr(None, assembly)}
    truth = geometry.surface_points(assembly, _POINTS, rng)[0]
    mesh = with_room(mesh)
    points = np.asarray(_sampled(jax.random.key(seed), mesh.vertices, mesh.faces))
    return {
        "f_score": f_score(points, truth, THRESHOLD),
        "chamfer": chamfer_l1(points, truth),
        "iou": iou,
        "psnr": _seen_psnr(colored(trained, planes, mesh), assembly),
    }


def colored(trained: SinglePass, planes, mesh: Mesh) -> Mesh:
    """The mesh with the field's colours at its vertices."""
    colors = linear_from_srgb(reconstruct.colors_at(trained, planes, mesh.vertices))
    return dataclasses.replace(mesh, vertex_colors=colors)


def _seen_psnr(mesh: Mesh | None, assembly: Assembly) -> float:
    """Mean over the unseen cameras; None for nothing to be seen."""
    values = []
    for camera in unseen_cameras():
        truth = np.asarray(true_picture(assembly, camera))
        seen = np.ones_like(truth) if mesh is None else np.asarray(picture(mesh, camera))
        values.append(float(psnr(jnp.asarray(seen)[None], jnp.asarray(truth)[None])))
    return float(np.mean(values))


def with_room(mesh: Mesh) -> Mesh:
    """The mesh with unused vertices and faces without area, powers of two of them: few programs serve all meshes."""

    def rows(array):
        count = 1 << max(len(array) - 1, 4095).bit_length()
        return jnp.concatenate([array, jnp.broadcast_to(array[:1, :1], (count - len(array), 3))])

    return Mesh(rows(mesh.vertices), rows(mesh.faces))


@jax.jit
def _sampled(key, vertices, faces):
    return sample_surface(key, vertices, faces, _POINTS).points


@jax.jit
def true_picture(assembly: Assembly, camera: Camera):
    """Base colours of an object on white, without light."""
    seen = rendering.render(assembly, camera)
    return seen.color + 1.0 - seen.coverage[..., None]


@jax.jit
def picture(mesh: Mesh, camera: Camera):
    """Base colours of a mesh on white, without light."""
    return jnp.clip(render_mesh(mesh, camera, light="none", background=jnp.ones(3), supersampling=2).color, 0.0, 1.0)
