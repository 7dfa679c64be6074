"""What lights a scene: ambient, directional and point lights, spherical harmonics, environment maps; random lights.

Colours are linear rgb in one unit everywhere: a white matte surface that faces the light has the light's colour. So a
directional or point light of colour c brings the irradiance pi c, and an environment that is c all around shows white
matte surfaces as c. All frames are the world's, +Y up.
"""

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from renderers.harmonics import MAX_DEGREE, sh_basis
from renderers.meshes.mesh import unit_or_zero


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class AmbientLight:
    """The same light from everywhere."""

    color: Float[Array, " 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class DirectionalLight:
    """Light from far away; `toward` points from surfaces to the light, any length but zero."""

    toward: Float[Array, " 3"]
    color: Float[Array, " 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class PointLight:
    """Light from a point; `color` is what arrives at a distance of one metre, or everywhere without `falloff`."""

    position: Float[Array, " 3"]
    color: Float[Array, " 3"]
    falloff: bool = dataclasses.field(default=True, metadata=dict(static=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class HarmonicLight:
    """Distant light in spherical harmonics: coefficients [k, 3] of radiance by direction, basis of `sh_basis`."""

    coefficients: Float[Array, "k 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class EnvironmentLight:
    """An environment map made ready by `environment.prepare_environment`.

    Attributes:
      diffuse: harmonics of the map's radiance, degree 2.
      specular: the map as surfaces of rising roughness mirror it, 0 to 1 in equal steps, equirectangular.
    """

    diffuse: Float[Array, "9 3"]
    specular: tuple[Float[Array, "_ _ 3"], ...]


Light: TypeAlias = AmbientLight | DirectionalLight | PointLight | HarmonicLight | EnvironmentLight
Lighting: TypeAlias = Light | Sequence[Light]


def listed(lighting: Lighting) -> tuple[Light, ...]:
    """One light or several as a tuple."""
    return tuple(lighting) if isinstance(lighting, Sequence) else (lighting,)


def light_from(
    light: DirectionalLight | PointLight, points: Float[Array, "*n 3"]
) -> tuple[Float[Array, "*n 3"], Float[Array, "*n 3"]]:
    """Unit directions from points to a light and the colours that arrive there. Differentiable; zero at the light."""
    if isinstance(light, DirectionalLight):
        toward = jnp.broadcast_to(unit_or_zero(light.toward), points.shape)
        return toward, jnp.broadcast_to(light.color, points.shape)
    offset = jnp.broadcast_to(light.position, points.shape) - points
    color = jnp.broadcast_to(light.color, points.shape)
    if light.falloff:
        squared = jnp.sum(offset * offset, -1, keepdims=True)
        color = jnp.where(squared > 0, color / jnp.where(squared > 0, squared, 1.0), 0.0)
    return unit_or_zero(offset), color


def diffuse_color(light: Light, normals: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """What a white matte surface shows under light from all directions, irradiance / pi. Differentiable.

    Raises:
      TypeError: the light is of one direction; see `light_from`.
    """
    if isinstance(light, AmbientLight):
        return jnp.broadcast_to(light.color, normals.shape)
    if isinstance(light, HarmonicLight):
        return harmonic_diffuse(light.coefficients, normals)
    if isinstance(light, EnvironmentLight):
        return jnp.maximum(harmonic_diffuse(light.diffuse, normals), 0.0)
    raise TypeError(f"expected light from all directions, got {type(light).__name__}; use light_from")


def harmonic_diffuse(coefficients: Float[Array, "k c"], normals: Float[Array, "*n 3"]) -> Float[Array, "*n c"]:
    """Irradiance / pi at unit normals under radiance given in spherical harmonics, degree 0 to 4.

    Exact for the given coefficients: each band is multiplied by that of the clamped cosine (Ramamoorthi and Hanrahan,
    "An efficient representation for irradiance environment maps", 2001). Of a complete light degree 2 holds 99%.

    Raises:
      ValueError: the number of coefficients is not a square, or above 25.
    """
    degree = math.isqrt(len(coefficients)) - 1
    if (degree + 1) ** 2 != len(coefficients) or not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"expected 1, 4, 9, 16 or 25 coefficients, got {len(coefficients)}")
    bands = [cosine_band(band) / math.pi for band in range(degree + 1) for _ in range(2 * band + 1)]
    scaled = coefficients * jnp.asarray(bands, coefficients.dtype)[:, None]
    return jnp.matmul(sh_basis(normals, degree), scaled, precision=jax.lax.Precision.HIGHEST)


def cosine_band(band: int) -> float:
    """By what a clamped cosine multiplies a band of harmonics: pi, 2 pi / 3, pi / 4, 0, -pi / 24, ...

    Ramamoorthi and Hanrahan, "On the relationship between radiance and irradiance" (2001), equation 26.
    """
    if band == 1:
        return 2 * math.pi / 3
    if band % 2:
        return 0.0
    sign = -1.0 if band % 4 == 0 else 1.0
    return (
        2
        * math.pi
        * sign
        / ((band + 2) * (band - 1))
        * math.factorial(band)
        / (2**band * math.factorial(band // 2) ** 2)
    )


def random_light(
    key: PRNGKeyArray, camera_position: Float[Array, " 3"], *, kind: Literal["dreamfusion", "magic3d"] = "dreamfusion"
) -> PointLight:
    """A white point light without falloff near the camera's side, as text-to-3D training draws it.

    DreamFusion (arXiv:2209.14988, appendix A.2): around the camera's direction, distance 0.8 to 1.5. Magic3D
    (arXiv:2211.10440): in the frame whose z axis points to the camera, any azimuth, 30 to 90 degrees above its plane.
    Distances are those of the source, metres around the origin, where the object is.
    """
    keys = jax.random.split(key, 3)
    dtype = camera_position.dtype
    distance = jax.random.uniform(keys[0], (), dtype, 0.8, 1.5)
    if kind == "dreamfusion":
        toward = unit_or_zero(camera_position + jax.random.normal(keys[1], (3,), dtype))
    else:
        azimuth = jax.random.uniform(keys[1], (), dtype, -jnp.pi, jnp.pi)
        elevation = jax.random.uniform(keys[2], (), dtype, jnp.pi / 6, jnp.pi / 2)
        axis = unit_or_zero(camera_position)
        other = jnp.where(jnp.abs(axis[1]) < 0.9, jnp.eye(3, dtype=dtype)[1], jnp.eye(3, dtype=dtype)[0])
        right = unit_or_zero(jnp.cross(other, axis))
        up = jnp.cross(axis, right)
        flat = jnp.cos(azimuth) * right + jnp.sin(azimuth) * up
        toward = jnp.cos(elevation) * flat + jnp.sin(elevation) * axis
    return PointLight(position=distance * toward, color=jnp.ones(3, dtype), falloff=False)


def random_shading(
    key: PRNGKeyArray, *, albedo: float | Float[Array, ""] = 0.25, textureless: float = 0.5
) -> Float[Array, " 3"]:
    """One of three shadings drawn as weights (albedo, textureless, lit), so that one compiled step serves all.

    Args:
      key: for this step.
      albedo: probability of the plain base colour; 1 for the first steps of a run. May be traced.
      textureless: probability, of the rest, of light alone on white.
    """
    first, second = jax.random.uniform(key, (2,))
    is_albedo, is_plain = first < albedo, second < textureless
    return jnp.stack([is_albedo, ~is_albedo & is_plain, ~is_albedo & ~is_plain]).astype(jnp.float32)
