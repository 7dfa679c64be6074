"""Sheets of rebuilt objects beside true ones."""

import jax
import numpy as np
from PIL import Image, ImageDraw

from experiments.data import blockworld
from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import Split
from experiments.errors import InputError
from experiments.prior.rings import make_rings
from experiments.single_pass import evaluation, reconstruct
from experiments.single_pass.weights import SinglePass
from renderers.meshes.render import render_mesh

SHOWN: tuple[tuple[Split, int], ...] = (
    ("iid", 0),
    ("iid", 1),
    ("iid", 2),
    ("iid", 3),
    ("compositional", 0),
    ("compositional", 1),
    ("family", 0),
    ("family", 1),
)
_PIXELS, _LINE, _LABEL = 96, 14, 60


def rebuilt_sheet(trained: SinglePass, seed: int, *, resolution: int = 64) -> np.ndarray:
    """Fixed objects of no training, uint8 [h, w, 3]: base colours of the truth, of the surface from four views, of that
    from one photograph; then the last two under light. One row a way, one column an object and camera.

    Args:
      trained: network.
      seed: of the world.
      resolution: nodes along a side of the grids.
    """
    cameras = rendering.ring_cameras(0.0, rendering.ELEVATION, views=4, size=trained.settings.size)
    front = jax.tree.map(lambda leaf: leaf[:1], cameras)
    shown_from = [evaluation.unseen_cameras(_PIXELS)[k] for k in (0, 2)]
    columns, captions = [], []
    for split, number in SHOWN:
        item = blockworld.item(seed, split, number)
        ring = make_rings(seed, split, [number], size=trained.settings.size, canonical=1.0)
        views = np.asarray(rendering.from_bytes(ring.views[0]))
        four = _mesh(trained, reconstruct.planes_of(trained, views, cameras), resolution)
        one = _mesh(trained, reconstruct.planes_of(trained, views[:1], front, whole=np.zeros(1, bool)), resolution)
        captions.append(item.caption)
        for camera in shown_from:
            cells = [np.asarray(evaluation.true_picture(item.assembly, camera))]
            cells += [_seen(mesh, camera, lit=False) for mesh in (four, one)]
            cells += [_seen(mesh, camera, lit=True) for mesh in (four, one)]
            columns.append(np.concatenate(cells))
    grid = (np.clip(np.concatenate(columns, axis=1), 0, 1) * 255 + 0.5).astype(np.uint8)
    sheet = Image.new("RGB", (grid.shape[1] + _LABEL, grid.shape[0] + 2 * _LINE), "white")
    sheet.paste(Image.fromarray(grid), (_LABEL, 2 * _LINE))
    pen, width = ImageDraw.Draw(sheet), len(shown_from) * _PIXELS
    for k, caption in enumerate(captions):
        most = width // 6 - 1
        pen.text((_LABEL + k * width, _LINE * 0), caption[:most], fill="black")
        pen.text((_LABEL + k * width, _LINE), caption[most : 2 * most], fill="black")
    for k, label in enumerate(("truth", "4 views", "1 image", "4 views", "1 image")):
        pen.text((2, 2 * _LINE + k * _PIXELS + _PIXELS // 2), label, fill="black")
    return np.asarray(sheet)


def _mesh(trained, planes, resolution):
    try:
        mesh = evaluation.with_room(reconstruct.surface(trained, planes, resolution=resolution))
    except InputError:
        return None
    return evaluation.colored(trained, planes, mesh)


def _seen(mesh, camera, *, lit):
    if mesh is None:
        return np.ones((_PIXELS, _PIXELS, 3), np.float32)
    return np.asarray(_lit(mesh, camera) if lit else evaluation.picture(mesh, camera))


@jax.jit
def _lit(mesh, camera):
    return render_mesh(mesh, camera, background=jax.numpy.ones(3), supersampling=2).color
