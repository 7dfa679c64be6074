"""Evaluation of clothed humans as the code of ICON and ECON computes it, for comparison with their tables.

Meshes lie in the cube [-1, 1]^3 of a body scaled to 180 cm (side 204.8 cm); what is printed as "cm" is 100 times cube
units, so true centimetres are 1.024 times as many. From 1,000 samples, and ECON's distances take most triangles for
wires: for numbers of our own use `metrics.point_to_surface` on 100,000 samples and say so.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from renderers.meshes.distances import brute_force_distances
from renderers.meshes.metrics import point_to_surface
from renderers.meshes.sampling import sample_surface, sample_surface_even

COUNT = 1000
_sampled = jax.jit(sample_surface, static_argnames=("count", "stratified"))
_PRINTED = 100.0
_ECON_SMALLEST_AREA = 5e-3  # of PyTorch3D's kernel, in squared cube units: larger than most triangles of a body


def icon_errors(
    key: PRNGKeyArray,
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    true_vertices: Float[Array, "w 3"],
    true_faces: Int[Array, "g 3"],
) -> tuple[float, float]:
    """P2S and Chamfer of ICON's evaluation: even samples, exact point-triangle distances, times 100. On the host.

    P2S is from samples of the truth to the prediction; Chamfer the mean of it and of the other way.
    """
    key_true, key_found = jax.random.split(key)
    truth = sample_surface_even(key_true, true_vertices, true_faces, COUNT).points
    found = sample_surface_even(key_found, vertices, faces, COUNT).points
    there = _PRINTED * point_to_surface(truth, vertices, faces)
    return there, 0.5 * (there + _PRINTED * point_to_surface(found, true_vertices, true_faces))


def econ_errors(
    key: PRNGKeyArray,
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    true_vertices: Float[Array, "w 3"],
    true_faces: Int[Array, "g 3"],
) -> tuple[float, float]:
    """P2S and Chamfer of ECON's and GTA's evaluation: uniform samples; triangles below 5e-3 are their edges only."""
    key_true, key_found = jax.random.split(key)
    truth = _sampled(key_true, true_vertices, true_faces, COUNT).points
    found = _sampled(key_found, vertices, faces, COUNT).points
    area = _ECON_SMALLEST_AREA
    there = _PRINTED * float(jnp.mean(brute_force_distances(truth, vertices, faces, smallest_area=area)))
    back = _PRINTED * float(jnp.mean(brute_force_distances(found, true_vertices, true_faces, smallest_area=area)))
    return there, 0.5 * (there + back)


def icon_normal_error(
    normals: Float[np.ndarray | Array, "4 h w 3"], true_normals: Float[np.ndarray | Array, "4 h w 3"]
) -> float:
    """ICON's "normal" error of renderings at yaws 0, 90, 180, 270 degrees (512 x 512, orthographic, 0 where empty).

    Lengths are made one where they are not zero, values mapped to (n + 1) / 2 (so background is 0.5), and the squared
    differences summed over channels and averaged over all pixels of the four views, times 4 (the views' sum).
    """

    def shown(images):
        images = np.asarray(images, np.float64)
        length = np.linalg.norm(images, axis=-1, keepdims=True)
        return (images / np.where(length > 0, length, 1.0) + 1.0) / 2.0

    return float(4.0 * ((shown(normals) - shown(true_normals)) ** 2).sum(-1).mean())
