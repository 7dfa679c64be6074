"""What light a surface sends to the camera: matte and metallic-roughness surfaces under the lights of `lights`.

The metallic-roughness model is that of glTF 2.0, appendix B: a GGX lobe with joint Smith shadowing and Schlick's
Fresnel term over a Lambert base, alpha = roughness^2, f0 = 0.04 for dielectrics and the base colour for metals. Light
is scattered once, so that rough metals lose some. All colours are linear.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.meshes.environment import mirrored_light, specular_shares
from renderers.meshes.lights import (
    AmbientLight,
    DirectionalLight,
    EnvironmentLight,
    Light,
    Lighting,
    PointLight,
    diffuse_color,
    light_from,
    listed,
)
from renderers.meshes.mesh import unit_or_zero

DIELECTRIC_F0 = 0.04
_SMALLEST_ALPHA = 1e-3  # of lights without size: the highlight of a mirror would be infinite


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class SurfacePoints:
    """Surfaces as seen by somebody; any leading axes.

    Attributes:
      positions: world.
      normals: unit, towards the viewer's side.
      views: unit, from the surface to the viewer.
      base_color: linear rgb.
      metallic, roughness: in [0, 1].
      emissive: linear rgb.
      occlusion: share of light from all around that arrives.
    """

    positions: Float[Array, "*n 3"]
    normals: Float[Array, "*n 3"]
    views: Float[Array, "*n 3"]
    base_color: Float[Array, "*n 3"]
    metallic: Float[Array, "*n"]
    roughness: Float[Array, "*n"]
    emissive: Float[Array, "*n 3"]
    occlusion: Float[Array, "*n"]


def shade(points: SurfacePoints, lighting: Lighting) -> Float[Array, "*n 3"]:
    """Radiance that metallic-roughness surfaces send to the viewer. Differentiable in points and lights.

    Lights from all directions (ambient, harmonics, environment) reach both the matte and the glossy part; harmonics are
    mirrored as a matte surface in the mirror's direction would show them, which is right for rough surfaces only.
    """
    total = points.emissive
    for light in listed(lighting):
        total = total + _from_one(points, light)
    return total


def shade_matte(
    albedo: Float[Array, "*n 3"], normals: Float[Array, "*n 3"], positions: Float[Array, "*n 3"], lighting: Lighting
) -> Float[Array, "*n 3"]:
    """Lambert's law: radiance of matte surfaces, `albedo / pi * irradiance`. Differentiable."""
    total = jnp.zeros_like(albedo)
    for light in listed(lighting):
        if isinstance(light, (DirectionalLight, PointLight)):
            toward, color = light_from(light, positions)
            total = total + color * jnp.maximum(jnp.sum(normals * toward, -1, keepdims=True), 0.0)
        else:
            total = total + diffuse_color(light, normals)
    return albedo * total


def shade_randomly(
    albedo: Float[Array, "*n 3"],
    normals: Float[Array, "*n 3"],
    positions: Float[Array, "*n 3"],
    light: PointLight,
    weights: Float[Array, " 3"],
    *,
    ambient: float | Float[Array, ""] = 0.1,
) -> Float[Array, "*n 3"]:
    """The augmentation of text-to-3D training: base colour, light on white, or lit base colour, by weights.

    Ambient light and a point light share one unit of light between them (DreamFusion, arXiv:2209.14988, section 3.1).

    Args:
      albedo: base colour.
      normals: unit.
      positions: world.
      light: `lights.random_light`.
      weights: of (albedo, textureless, lit), `lights.random_shading`.
      ambient: share of ambient light, may be traced.
    """
    lights = (
        AmbientLight(color=ambient * jnp.ones_like(light.color)),
        dataclasses.replace(light, color=(1 - ambient) * light.color),
    )
    received = shade_matte(jnp.ones_like(albedo), normals, positions, lights)
    weights = weights.astype(albedo.dtype)
    return albedo * weights[0] + received * weights[1] + albedo * received * weights[2]


def ggx_distribution(normal_half: Float[Array, "*n"], alpha: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Density of microfacet normals, D (Walter et al. 2007, equation 33): times its cosine it integrates to 1."""
    squared = alpha * alpha
    bent = 1 + normal_half * normal_half * (squared - 1)
    return squared / (jnp.pi * bent * bent)


def smith_visibility(
    normal_light: Float[Array, "*n"], normal_view: Float[Array, "*n"], alpha: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Joint Smith shadowing and masking over `4 (n.l) (n.v)` (Heitz 2014)."""
    squared = alpha * alpha
    light = normal_view * jnp.sqrt(normal_light**2 * (1 - squared) + squared)
    view = normal_light * jnp.sqrt(normal_view**2 * (1 - squared) + squared)
    return 0.5 / jnp.maximum(light + view, 1e-7)


def fresnel(f0: Float[Array, "*n c"], view_half: Float[Array, "*n"]) -> Float[Array, "*n c"]:
    """Schlick's reflectance: f0 head-on, 1 at grazing incidence."""
    return f0 + (1 - f0) * (jnp.clip(1 - view_half, 0, 1) ** 5)[..., None]


def bent_normals(
    normals: Float[Array, "*n 3"],
    tangents: Float[Array, "*n 3"],
    bitangents: Float[Array, "*n 3"],
    map_values: Float[Array, "*n 3"],
    scale: float | Float[Array, "..."] = 1.0,
) -> Float[Array, "*n 3"]:
    """Normals of a normal map. Differentiable.

    Args:
      normals: unit.
      tangents, bitangents: the way the surface goes with u and with v; any length; made perpendicular to the normal
        here, each by itself. (glTF asks for MikkTSpace, which does so at vertices; on smooth surfaces the two agree.)
      map_values: of the texture, (n + 1) / 2, +Y along v.
      scale: of x and y; a number, or [..., 1].
    """
    local = 2 * map_values - 1

    def flattened(vector):
        return unit_or_zero(vector - normals * jnp.sum(vector * normals, -1, keepdims=True))

    sideways = flattened(tangents) * local[..., :1] + flattened(bitangents) * local[..., 1:2]
    return unit_or_zero(sideways * scale + normals * local[..., 2:])


def _from_one(points: SurfacePoints, light: Light):
    metallic, roughness = points.metallic[..., None], points.roughness
    matte = points.base_color * (1 - metallic)
    f0 = DIELECTRIC_F0 * (1 - metallic) + points.base_color * metallic
    normal_view = jnp.clip(jnp.sum(points.normals * points.views, -1), 1e-4, 1.0)
    if isinstance(light, (DirectionalLight, PointLight)):
        return _from_direction(points, matte, f0, normal_view, *light_from(light, points.positions))
    mirror = unit_or_zero(2 * normal_view[..., None] * points.normals - points.views)
    if isinstance(light, EnvironmentLight):
        received = mirrored_light(light, mirror, roughness)
    else:
        received = jnp.maximum(diffuse_color(light, mirror), 0.0)
    scale, offset = specular_shares(normal_view, roughness)
    glossy = f0 * scale[..., None] + offset[..., None]
    # what is not mirrored reaches the base, taken for a dielectric's own reflectance as a metal has no base
    through = 1 - (DIELECTRIC_F0 * scale + offset)[..., None]
    below = matte * through * diffuse_color(light, points.normals)
    return (below + glossy * received) * points.occlusion[..., None]


def _from_direction(points, matte, f0, normal_view, toward, color):
    alpha = jnp.maximum(points.roughness**2, _SMALLEST_ALPHA)
    half = unit_or_zero(toward + points.views)
    cosine = jnp.sum(points.normals * toward, -1)
    normal_light = jnp.clip(cosine, 0.0, 1.0)
    normal_half = jnp.clip(jnp.sum(points.normals * half, -1), 0.0, 1.0)
    mirrored = fresnel(f0, jnp.sum(points.views * half, -1))
    lobe = ggx_distribution(normal_half, alpha) * smith_visibility(normal_light, normal_view, alpha)
    # colours are irradiance / pi, see `lights`
    reflected = (1 - mirrored) * matte + jnp.pi * mirrored * lobe[..., None]
    return reflected * color * normal_light[..., None]
