"""Pictures of the block world: sphere tracing of one object, and the eight channels that a multi-view model sees.

Channels, in [-1, 1]: base colour (2 c - 1) and normal in the camera's frame (OpenCV: x right, y down, z forward), both
times the coverage, so that the background is mid-grey; depth, positive in front of the object's centre, -1 for the
background; coverage as 2 a - 1.
"""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from experiments.data.blocks import solids
from experiments.data.blocks.solids import Assembly
from renderers.cameras.camera import Camera, resize
from renderers.cameras.rays import camera_rays
from renderers.cameras.trajectories import orbit

DISTANCE = 1.9  # metres from the camera to the centre of the object
FIELD_OF_VIEW = math.radians(40.0)
ELEVATION = math.radians(15.0)  # of the canonical ring
DEPTH_RANGE = 0.7  # half of it, metres; no object reaches further from the origin by more
CHANNELS = 8
_REACH = 0.85  # radius of the ball about the origin in which rays are traced
_FLATTEST = 0.01  # sine of the angle between ray and surface below which a surface is not looked for further on
_SKIM = 0.3  # metres that a step of Newton's goes at most
_NEWTON = 2  # of those steps
_HIT = 0.001  # metres from the surface that count as on it; areas of outlines are then 0.3% too large


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Pictures:
    """What a camera sees of an object; everything but coverage is multiplied by it.

    Attributes:
      color: base colour in [0, 1], no light.
      normal: outward, in the world's frame.
      depth: metres along the viewing direction.
      coverage: share of the pixel, in [0, 1].
    """

    color: Float[Array, "*b h w 3"]
    normal: Float[Array, "*b h w 3"]
    depth: Float[Array, "*b h w"]
    coverage: Float[Array, "*b h w"]


def ring_cameras(azimuth, elevation, *, views: int, size: int) -> Camera:
    """Cameras about the object at equal steps of azimuth, stacked along v; angles in radians, square pictures.

    Args:
      azimuth: of the first; 0 is in front, growing to the right.
      elevation: of all of them.
      views: their number; 4 see front, right, back and left.
      size: pixels along a side.
    """
    poses = orbit(views, DISTANCE, elevation=elevation, start_azimuth=azimuth)
    focal = jnp.full((views, 2), 0.5 * size / math.tan(0.5 * FIELD_OF_VIEW), jnp.float32)
    return Camera(poses, focal, jnp.full((views, 2), 0.5 * size, jnp.float32), (size, size))


def render(assembly: Assembly, camera: Camera, *, supersampling: int = 2, steps: int = 24) -> Pictures:
    """One object from one camera; vmap for more.

    Args:
      assembly: without leading axes.
      camera: any model.
      supersampling: rays along a pixel's side, averaged.
      steps: of the sphere tracing; more where thin things are seen from the side.
    """
    height, width = camera.size
    fine = resize(camera, (height * supersampling, width * supersampling))
    rays = camera_rays(fine)
    origin = [rays.origins[..., i].reshape(-1) for i in range(3)]
    direction = [rays.directions[..., i].reshape(-1) for i in range(3)]
    along, hit = _trace(assembly, origin, direction, steps)
    at = [o + along * d for o, d in zip(origin, direction, strict=True)]
    hit = hit * rays.valid.reshape(-1)
    parts = solids.distances(assembly, *at)
    color = _nearest(parts, assembly.colors)
    slope = jax.grad(lambda x, y, z: jnp.sum(_union(assembly, x, y, z)), (0, 1, 2))(*at)
    inverse = jax.lax.rsqrt(sum(v * v for v in slope) + 1e-12)
    row = fine.camera_from_world[2]
    depth = sum(row[i] * at[i] for i in range(3)) + row[3]

    def averaged(*channels):
        image = jnp.stack([hit * channel for channel in channels], axis=-1)
        image = image.reshape(height, supersampling, width, supersampling, len(channels))
        return jnp.mean(image, axis=(1, 3))

    return Pictures(
        color=averaged(*color),
        normal=averaged(*(v * inverse for v in slope)),
        depth=averaged(depth)[..., 0],
        coverage=averaged(jnp.ones_like(hit))[..., 0],
    )


def to_channels(pictures: Pictures, camera: Camera) -> Float[Array, "h w 8"]:
    """One view's pictures as a multi-view model sees them, see the module."""
    coverage = pictures.coverage[..., None]
    normal = jnp.einsum("ij,hwj->hwi", camera.camera_from_world[:3, :3], pictures.normal)
    nearness = (DISTANCE * coverage - pictures.depth[..., None]) / DEPTH_RANGE - (1.0 - coverage)
    channels = [2.0 * pictures.color - coverage, normal, nearness, 2.0 * coverage - 1.0]
    return jnp.clip(jnp.concatenate(channels, axis=-1), -1.0, 1.0)


def render_ring(assembly: Assembly, azimuth, elevation, *, views: int = 4, size: int = 32) -> Float[Array, "v h w 8"]:
    """Channels of one object on a ring of cameras; vmap over objects and angles."""
    cameras = ring_cameras(azimuth, elevation, views=views, size=size)
    return jax.vmap(lambda camera: to_channels(render(assembly, camera), camera))(cameras)


def lit(channels: Float[Array, "*b 8"], light: Float[Array, "*#b 3"], ambient) -> Float[Array, "*b 3"]:
    """Base colours of channels under Lambertian light, as channels: 2 c - 1 times coverage.

    Args:
      channels: see the module.
      light: unit vector towards the light, in the camera's frame.
      ambient: share of the light that comes from everywhere, in [0, 1].
    """
    coverage = 0.5 * (channels[..., 7:8] + 1.0)
    cosine = jnp.maximum(jnp.sum(channels[..., 3:6] * light, axis=-1, keepdims=True), 0.0)
    shade = ambient + (1.0 - ambient) * cosine / jnp.maximum(coverage, 1e-3)
    return (channels[..., :3] + coverage) * jnp.minimum(shade, 1.0) - coverage


def in_some_light(key: PRNGKeyArray, channels: Float[Array, "b *v h w 8"], share: float) -> Float[Array, "b *v h w 3"]:
    """Base colours of pictures as they are or, for a share of the objects, in some light: as photographs show them.

    The light of an object is fixed to the camera, rather from above and behind it, with 30 to 90% ambient.

    Args:
      key: random.
      channels: see the module; several pictures of an object are in the same light.
      share: of objects that are lit, in [0, 1].
    """
    for_light, for_ambient, for_use = jax.random.split(key, 3)
    b = len(channels)
    each = (b,) + (1,) * (channels.ndim - 1)
    light = jax.random.normal(for_light, (b, 3)) + jnp.array([[0.0, -0.7, -0.7]])
    light = (light / jnp.linalg.norm(light, axis=-1, keepdims=True)).reshape(each[:-1] + (3,))
    shaded = lit(channels, light, jax.random.uniform(for_ambient, each, minval=0.3, maxval=0.9))
    return jnp.where(jax.random.bernoulli(for_use, share, each), shaded, channels[..., :3])


def to_bytes(channels) -> np.ndarray:
    """Channels as bytes, 128 for 0: a quarter of the memory, errors up to 0.004."""
    return np.asarray(jnp.round(jnp.clip(channels, -1.0, 1.0) * 127.0 + 128.0).astype(jnp.uint8))


def from_bytes(stored) -> Float[Array, "..."]:
    """Inverse of `to_bytes`."""
    return (jnp.asarray(stored).astype(jnp.float32) - 128.0) / 127.0


def _union(assembly, x, y, z):
    parts = solids.distances(assembly, x, y, z)
    nearest = parts[0]
    for part in parts[1:]:
        nearest = jnp.minimum(nearest, part)
    return nearest


def _trace(assembly, origin, direction, steps):
    """Distances along rays at which they meet the surface, and whether they do."""
    middle = -sum(o * d for o, d in zip(origin, direction, strict=True))
    last = middle + _REACH

    def step(_, along):
        x, y, z = (o + along * d for o, d in zip(origin, direction, strict=True))
        return jnp.minimum(along + _union(assembly, x, y, z), last)

    along = jax.lax.fori_loop(0, steps, step, jnp.maximum(middle - _REACH, 0.0))

    def gap(along):
        x, y, z = (o + along * d for o, d in zip(origin, direction, strict=True))
        return _union(assembly, x, y, z)

    def newton(_, along):
        distance, pull = jax.jvp(gap, (along,), (jnp.ones_like(along),))
        ahead = jnp.where(pull < -_FLATTEST, distance / jnp.maximum(-pull, _FLATTEST), 0.0)
        return jnp.clip(along + ahead, along - _HIT, jnp.minimum(along + _SKIM, last))

    # Where a ray skims a flat side, steps of the distance shrink before they arrive; along a plane Newton's are exact
    along = jax.lax.fori_loop(0, _NEWTON, newton, along)
    return along, (gap(along) < _HIT).astype(along.dtype)


def _nearest(parts, colors):
    """Colour channels of the solid that each point is nearest to."""
    best, chosen = parts[0], [jnp.broadcast_to(colors[0, i], parts[0].shape) for i in range(3)]
    for k, part in enumerate(parts[1:], 1):
        nearer = part < best
        best = jnp.minimum(best, part)
        chosen = [jnp.where(nearer, colors[k, i], channel) for i, channel in enumerate(chosen)]
    return chosen
