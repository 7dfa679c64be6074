"""The surface of a field as a textured mesh, and how well it stands for the field."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import media, report
from experiments.fields import rendering
from experiments.fields.loading import ask
from experiments.fields.model import merged
from experiments.fields.rendering import Setup
from experiments.fields.settings import FieldConfig
from experiments.fields.training import State
from experiments.fields.views import Views
from experiments.splats.scene import Normalisation
from renderers.fields.nerf import NerfField
from renderers.meshes import baking, cleanup, extraction, simplification, unwrapping
from renderers.meshes.mesh import Mesh, plain_material, vertex_normals
from renderers.meshes.render import render_mesh
from renderers.metrics import psnr
from renderers.volumes import quadrature

_BOX = np.array([[-1.0] * 3, [1.0] * 3])
_POINTS = 1 << 15  # asked at a time
_TEXELS = 1 << 12
_ACROSS = 8  # samples through the surface that a texel's colour is composed of
_DEPTH = 2.0  # cells in front of the surface, and behind it, that they reach
_SMALLEST_PART = 0.01  # of the largest part's faces


def extract(
    state: State, config: FieldConfig, setup: Setup, progress: Callable[[str, int, int], None] | None = None
) -> Mesh | None:
    """The field's surface in the box [-1, 1]^3, textured with what is seen straight from outside; None if it has none.

    A density's surface is where the way across a cell of the grid has the opacity `config.mesh.level`, a signed
    distance's is at zero. Small parts are dropped. Runs on the host; `progress` is called as (phase, done, all) between
    parts of the work, and may leave by an exception. Unwrapping, half a minute for 40,000 faces, is one part.
    """

    def within(phase):
        return None if progress is None else functools.partial(progress, phase)

    nodes = config.mesh.resolution + 1
    cell = 2 / config.mesh.resolution
    distances = config.surface != "density"
    level = 0.0 if distances else -math.log1p(-config.mesh.level) / cell
    inside = "below" if distances else "above"
    asked = _values(state, config, setup, cell)
    values = extraction.sample_grid(asked, _BOX, nodes, chunk=_POINTS, progress=within("surface"))
    if not distances:
        # the network's exponent is what goes evenly through a wall; beyond e^3 it says nothing of where the wall begins
        values, level = np.clip(np.log(np.maximum(values, 1e-9) / level), -3.0, 3.0), 0.0
    try:
        found = extraction.marching_cubes(values, _BOX, level=level, inside=inside, close_at_border=not setup.unbounded)
    except ValueError:
        return None
    mesh = cleanup.clean(found, smallest_share=_SMALLEST_PART)
    mesh = cleanup.clean(simplification.simplify(mesh, config.mesh.faces), smallest_share=_SMALLEST_PART)
    if not len(mesh.faces):
        return None
    if progress is not None:
        progress("unwrap", 0, 1)
    mesh = unwrapping.unwrap(mesh, resolution=config.mesh.texture)
    colors, size = _colors(state, config, setup, cell), (config.mesh.texture, config.mesh.texture)
    baked = baking.bake_field(mesh, colors, size, chunk=_TEXELS, progress=within("texture"))
    return dataclasses.replace(
        mesh,
        texture=jnp.clip(jnp.asarray(baked.texture), 0.0, 1.0),
        normals=vertex_normals(mesh.vertices, mesh.faces),
        material=plain_material(roughness=1.0),
    )


def in_world(mesh: Mesh, frame: Normalisation) -> Mesh:
    """The mesh in the capture's own frame."""
    center = jnp.asarray(frame.center[None], jnp.float32)
    return dataclasses.replace(mesh, vertices=mesh.vertices * np.float32(frame.scale) + center)


def compare(
    mesh: Mesh, views: Views, shown: Sequence[int], renders: dict[int, np.ndarray], stopped: Callable[[], bool]
) -> tuple[float | None, list[report.Picture]]:
    """Mean PSNR of the mesh, unlit, against the field's own renders of views, and pictures of both.

    Args:
      mesh: in the normalised frame.
      views: cameras.
      shown: views to compare in.
      renders: the field's, by view.
      stopped: asks whether to break off; the PSNR is then None.
    """
    background = jnp.full(3, views.background, jnp.float32)
    found, pictures = [], []
    for view in shown:
        if stopped():
            return None, pictures
        color = _unlit(mesh, jax.tree.map(jnp.asarray, views.cameras[view]), background)
        found.append(float(psnr(color[None], jnp.asarray(renders[view])[None])))
        if len(pictures) < 4:
            error = np.clip(4 * np.abs(np.asarray(color) - renders[view]), 0, 1)
            caption = f"{views.names[view]}, {found[-1]:.2f} dB: field, mesh, error x 4"
            pictures.append(
                report.Picture(image=media.side_by_side(renders[view], np.asarray(color), error), caption=caption)
            )
    return float(np.mean(found)), pictures


@jax.jit
def _unlit(mesh, camera, background):
    return render_mesh(mesh, camera, light="none", background=background).color


def _values(state: State, config: FieldConfig, setup: Setup, cell: float):
    """Values on the grid: density per unit, zero where space was found empty; or distance, positive where carved."""

    @jax.jit
    def values(points):
        model = merged(state.params, config, unbounded=setup.unbounded)
        if isinstance(model.field, NerfField):
            density, _ = ask(state, points, jnp.zeros_like(points).at[:, 2].set(1.0), config, setup)
            return density
        seen = rendering.ever_seen(state.grid, points)
        return jnp.where(seen, model.field.distance(points), cell)

    return values


def _colors(state: State, config: FieldConfig, setup: Setup, cell: float):
    """Colour of surface points seen along the normal: composed of samples from in front of the surface to behind it."""
    edges = jnp.linspace(_DEPTH * cell, -_DEPTH * cell, _ACROSS + 1)
    middles = 0.5 * (edges[1:] + edges[:-1])

    @jax.jit
    def colors(points, normals):
        places = points[:, None] + middles[None, :, None] * normals[:, None]
        along = jnp.broadcast_to(-normals[:, None], places.shape)
        density, values = ask(state, places.reshape(-1, 3), along.reshape(-1, 3), config, setup)
        lengths = jnp.full((len(points), _ACROSS), -jnp.diff(edges)[0])
        weights, _ = quadrature.weights_from_density(density.reshape(lengths.shape), lengths, opaque_background=True)
        return quadrature.composite(weights, values.reshape(places.shape))

    return colors
