"""Image-based light: an equirectangular map prepared for matte and glossy surfaces, and a studio made of formulas.

A map [h, w, 3] holds linear radiance of all directions: row 0 is straight up (+Y), the middle column is -Z, which a
camera in front of the asset looks along, and columns go on to +X, on its right. The glossy part follows Karis, "Real
shading in Unreal Engine 4" (2013): the integral of light times reflectance is split into light blurred by roughness,
and a table of reflectance.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from renderers.harmonics import sh_basis
from renderers.meshes.lights import EnvironmentLight
from renderers.meshes.textures import sample_levels

_LEVELS = 6
_SMALLEST_ROWS = 16
_TABLE_SIZE, _TABLE_SAMPLES = 48, 1024


def map_directions(size: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    """World directions of the texels of an equirectangular map."""
    height, width = size
    polar = np.pi * (np.arange(height) + 0.5) / height
    azimuth = 2 * np.pi * (np.arange(width) + 0.5) / width - np.pi
    sine = np.sin(polar)[:, None]
    x, z = sine * np.sin(azimuth), -sine * np.cos(azimuth)
    return np.stack([x, np.broadcast_to(np.cos(polar)[:, None], x.shape), z], -1).astype(np.float32)


def map_coordinates(directions: Float[Array, "*n 3"]) -> Float[Array, "*n 2"]:
    """Texture coordinates, v up, of unit directions in such a map. Differentiable but straight up and down."""
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    pole = (x == 0) & (z == 0)
    azimuth = jnp.arctan2(jnp.where(pole, 0.0, x), jnp.where(pole, 1.0, -z))
    limit = 1 - jnp.finfo(y.dtype).eps  # where the derivative of the arc cosine is still finite
    return jnp.stack([azimuth / (2 * jnp.pi) + 0.5, 1 - jnp.arccos(jnp.clip(y, -limit, limit)) / jnp.pi], -1)


def solid_angles(size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Of the texels of an equirectangular map, exact; 4 pi in all."""
    height, width = size
    edges = np.cos(np.pi * np.arange(height + 1) / height)
    return np.broadcast_to(((edges[:-1] - edges[1:]) * 2 * np.pi / width)[:, None], size).astype(np.float32)


def harmonics_of_map(radiance: Float[Array, "h w 3"], *, degree: int = 2) -> Float[Array, "k 3"]:
    """Coefficients of a map's radiance in the basis of `sh_basis`, by quadrature over its texels. Differentiable."""
    size = (radiance.shape[0], radiance.shape[1])
    basis = sh_basis(jnp.asarray(map_directions(size), radiance.dtype), degree)
    weights = jnp.asarray(solid_angles(size), radiance.dtype)
    return jnp.einsum("hwk,hw,hwc->kc", basis, weights, radiance, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("levels",))
def prepare_environment(radiance: Float[Array, "h w 3"], *, levels: int = _LEVELS) -> EnvironmentLight:
    """Makes a map ready for shading: harmonics for matte surfaces, blurred copies for glossy ones.

    Copy i is the mean radiance weighted by the GGX lobe of roughness i / (levels - 1) seen head-on times the cosine of
    incidence, by quadrature over all texels; copies halve in size down to 16 rows. Cost is that of (texels)^2 / 4,
    about a second for 128 x 256. Differentiable.

    Args:
      radiance: linear; for mirrors take at least 128 rows.
      levels: static, 2 or more.
    """
    size = (radiance.shape[0], radiance.shape[1])
    directions = jnp.asarray(map_directions(size), radiance.dtype).reshape(-1, 3)
    weights = jnp.asarray(solid_angles(size), radiance.dtype).reshape(-1)
    copies = [radiance]
    for level in range(1, levels):
        rows = max(size[0] >> level, min(size[0], _SMALLEST_ROWS))
        seen = jnp.asarray(map_directions((rows, 2 * rows)), radiance.dtype)
        alpha_squared = (level / (levels - 1)) ** 4

        def blurred(row, alpha_squared=alpha_squared):
            cosine = jnp.matmul(row, directions.T, precision=jax.lax.Precision.HIGHEST)
            # with normal = view = row, the half vector has cosine^2 (1 + cosine) / 2
            bent = 1 + 0.5 * (1 + cosine) * (alpha_squared - 1)
            lobe = jnp.maximum(cosine, 0.0) * weights[None] / (bent * bent)
            total = jnp.matmul(lobe, radiance.reshape(-1, 3), precision=jax.lax.Precision.HIGHEST)
            return total / jnp.sum(lobe, 1, keepdims=True)

        copies.append(jax.lax.map(blurred, seen))
    return EnvironmentLight(diffuse=harmonics_of_map(radiance), specular=tuple(copies))


def mirrored_light(
    light: EnvironmentLight, directions: Float[Array, "*n 3"], roughness: Float[Array, "*n"]
) -> Float[Array, "*n 3"]:
    """Light that surfaces of some roughness see in unit mirror directions. Differentiable in everything."""
    level = roughness * (len(light.specular) - 1)
    return sample_levels(light.specular, map_coordinates(directions), level, wrap=("repeat", "clamp"))


def specular_shares(
    cosine: Float[Array, "*n"], roughness: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Scale and offset: `f0 * scale + offset` is the share of uniform light that a glossy surface reflects.

    From a table, by quadrature, of the GGX lobe with joint Smith shadowing and Schlick's Fresnel term; within 0.01.

    Args:
      cosine: of the angle between normal and view.
      roughness: perceptual, in [0, 1].
    """
    table = jnp.asarray(_reflectance_table(), cosine.dtype)
    steps = _TABLE_SIZE - 1
    # the table's first and last entries are at 0 and 1, those of a texture half a texel inside
    u, v = ((jnp.clip(x, 0, 1) * steps + 0.5) / _TABLE_SIZE for x in (cosine, roughness))
    level = jnp.zeros_like(cosine)
    found = sample_levels((table,), jnp.stack([u, 1 - v], -1), level, wrap="clamp")
    return found[..., 0], found[..., 1]


def studio_map(size: tuple[int, int] = (64, 128)) -> Float[np.ndarray, "h w 3"]:
    """Radiance of a studio: a soft box above on the left, a weaker one on the right, a rim light behind, grey walls.

    Made by a formula, so that pictures need no file. White matte surfaces that face the camera show about 0.7,
    those that face the large box 1.
    """
    directions = map_directions(size).astype(np.float64)
    height = directions[..., 1:2]
    walls = 0.46 + 0.2 * height + np.zeros(3)
    floor = 1 / (1 + np.exp(np.minimum((height + 0.35) * 14, 60.0)))
    walls = walls * (1 - 0.45 * floor) * (1 + floor * (np.asarray([1.05, 1.0, 0.94]) - 1))
    boxes = [
        ((-0.75, 0.75, 0.8), 0.52, 4.4, (1.0, 0.97, 0.92)),
        ((0.95, 0.25, 0.55), 0.36, 2.4, (0.92, 0.96, 1.0)),
        ((0.35, 0.65, -1.0), 0.34, 4.0, (1.0, 1.0, 1.0)),
        ((0.0, 1.0, 0.0), 0.45, 1.2, (1.0, 1.0, 1.0)),
    ]
    for toward, radius, power, tint in boxes:
        axis = np.asarray(toward) / np.linalg.norm(toward)
        angle = np.arccos(np.clip(directions @ axis, -1, 1))[..., None]
        walls = walls + power * np.asarray(tint) / (1 + np.exp(np.clip((angle - radius) * 28, -60, 60)))
    return (0.56 * walls).astype(np.float32)


def studio_light() -> EnvironmentLight:
    """`studio_map` made ready, once a process."""
    return jax.tree.map(jnp.asarray, _studio())


@functools.cache
def _studio() -> EnvironmentLight:
    """On the host: what is kept from one trace to the next must not belong to the first."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, prepare_environment(jnp.asarray(studio_map())))


@functools.cache
def _reflectance_table() -> Float[np.ndarray, "_ _ 2"]:
    """Rows by roughness, columns by cosine of view, both from 0 to 1: scale and offset of f0."""
    roughness, cosine = np.meshgrid(*2 * [np.linspace(0, 1, _TABLE_SIZE)], indexing="ij")
    alpha2 = np.maximum(roughness, 1e-3) ** 4
    cosine = np.maximum(cosine, 1e-3)
    sine = np.sqrt(1 - cosine**2)
    side = math.isqrt(_TABLE_SAMPLES)
    table = np.zeros((_TABLE_SIZE, _TABLE_SIZE, 2))
    for i in range(side):  # half vectors at the middles of equal parts of the lobe
        share = (i + 0.5) / side
        half_z = np.sqrt((1 - share) / (1 + (alpha2 - 1) * share))
        half_x = np.sqrt(1 - half_z**2)
        for j in range(side):
            view_half = sine * half_x * math.cos(2 * math.pi * (j + 0.5) / side) + cosine * half_z
            light_z = 2 * view_half * half_z - cosine
            lit = np.where((light_z > 0) & (view_half > 0), light_z, 1.0)
            smith = lit * np.sqrt(cosine**2 * (1 - alpha2) + alpha2) + cosine * np.sqrt(lit**2 * (1 - alpha2) + alpha2)
            weight = np.where((light_z > 0) & (view_half > 0), 2 * lit * view_half / (half_z * smith), 0.0)
            fresnel = (1 - np.clip(view_half, 0, 1)) ** 5
            table += np.stack([(1 - fresnel) * weight, fresnel * weight], -1)
    return (table / side**2).astype(np.float32)
