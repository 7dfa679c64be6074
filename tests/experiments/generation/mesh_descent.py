"""Vertices and vertex colours as a scene that a guide is distilled into: third representation of the oracle tests."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from experiments import keys
from experiments.data.blocks import rendering
from experiments.data.blocks.rendering import Pictures
from experiments.generation import score
from experiments.surfaces.fit import pace, render_values, shortest_edge
from experiments.surfaces.shapes import sphere
from renderers.cameras.camera import resize
from renderers.meshes.mesh import Mesh, vertex_normals
from renderers.meshes.remeshing import RemeshingRates, RemeshingState, current_mesh, descend, remesh, start_remeshing

RATES = RemeshingRates(shortest=0.02, longest=0.06, max_faces=8000)
_COLOR_STEP = 0.25  # of the way to what the views of a step say of a vertex's colour
_POOLED = 2


def see(vertices, colors, state: RemeshingState, cameras) -> Pictures:
    """Pictures of the mesh; pixels are averages of 2 x 2, outlines antialiased."""
    height, width = cameras.size

    def one(camera):
        fine = resize(camera, (_POOLED * height, _POOLED * width))
        depth = vertices @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3]
        values = jnp.concatenate([colors, vertex_normals(vertices, state.faces), depth[:, None]], 1)
        _, mask, image = render_values(vertices, state.faces, state.opposite, values, fine)
        image = jnp.concatenate([image, mask[..., None]], -1)
        return image.reshape(height, _POOLED, width, _POOLED, 8).mean((1, 3))

    seen = lax.map(one, cameras)
    return Pictures(color=seen[..., :3], normal=seen[..., 3:6], depth=seen[..., 6], coverage=seen[..., 7])


@functools.partial(jax.jit, static_argnames=("config", "seed"))
def _step(state: RemeshingState, guide, step, fraction, *, config, seed):
    azimuth, elevation = score.cameras_of_step(seed, step, config)
    cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=guide.size)

    def loss_of(vertices, colors):
        ring = jax.vmap(rendering.to_channels)(see(vertices, colors, state, cameras), cameras)
        return score.distil(keys.key(seed, "noise", step), ring, guide, azimuth, elevation, fraction, config).loss

    to_vertices, to_colors = jax.grad(loss_of, argnums=(0, 1))(state.vertices, state.features)
    moved = descend(state, to_vertices, RATES, shortest=shortest_edge(RATES, fraction), pace=pace(fraction))
    # the mean of what its pixels ask of a vertex: Newton's step for the squared error of colours
    share = jax.grad(lambda colors: jnp.sum(see(state.vertices, colors, state, cameras).color))(state.features)
    pixels = guide.size**2
    change = jnp.clip(to_colors * pixels / jnp.maximum(share, 1e-3), -1.0, 1.0)
    features = jnp.clip(state.features - _COLOR_STEP * change, 0.0, 1.0)
    return RemeshingState(**{**vars(moved), "features": features})


def distil(guide, config, *, steps: int, seed: int = 0) -> tuple[RemeshingState, Mesh]:
    """From a grey ball to what the guide likes best."""
    state = start_remeshing(*sphere(0.3), RATES, num_features=3)
    for step in range(steps):
        state = _step(state, guide, jnp.int32(step), jnp.float32(step / steps), config=config, seed=seed)
        state = remesh(state, RATES)
    vertices, faces = current_mesh(state)
    return state, Mesh(jnp.asarray(vertices), jnp.asarray(faces))
