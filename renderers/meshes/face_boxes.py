"""Boxes of pixels that hold every pixel which can see a face: too large is slow, too small would be wrong."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.kernels.composite.xla import to_tiles
from renderers.kernels.tiling import TILE, grid

_SLACK = 0.01  # pixels
_MOST_SLACK = 1e9  # pixels; keeps infinite coordinates from cancelling
_ROUNDINGS = 16  # by which a projected coordinate may be off, in units of its own rounding
_CONE_SLACK = 1e-5  # radians
_WIDE = 1.4  # chord of 89 degrees; a cap this wide is no longer convex, so that it could miss part of a triangle


def face_boxes(
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    camera: Camera,
    rays: Float[Array, "h w 3"],
    valid: Bool[Array, "h w"],
    near: Float[Array, ""],
) -> Int[Array, "f 4"]:
    """First pixel (x, y) and one past the last (x, y) of each face.

    Empty for faces that no pixel sees: outside the image, nearer than `near`, or with a corner that is not finite.

    Args:
      points: camera frame.
      faces: rows of points.
      camera: with its lens; the pose is not read.
      rays: of all pixels, and
      valid: which of them see anything, as `pixel_rays` gives them.
      near: metres, positive for perspective.
    """
    # one array a coordinate, sums and extremes written out: on CPUs that is several times faster than axes of three
    corners = [tuple(points[:, axis][faces[:, k]] for axis in range(3)) for k in range(3)]
    finite = _fold(jnp.logical_and, [jnp.isfinite(x + y + z) for x, y, z in corners])
    if camera.model == "orthographic":
        everywhere = jnp.ones_like(finite)
        boxes = _boxes_of_plane([(x, y, everywhere) for x, y, _ in corners], 0.0, camera)
        seen = _fold(jnp.maximum, [z for _, _, z in corners]) > near
    elif camera.model == "pinhole" and camera.distortion is None:
        boxes, seen = _clipped_boxes(corners, camera, near)
    else:
        directions = rays / jnp.linalg.norm(rays, axis=-1, keepdims=True)
        boxes, seen = _cone_boxes(corners, directions, valid, camera.size), jnp.ones_like(finite)
    return jnp.where((finite & seen)[:, None], boxes, 0)


def _fold(function, arrays):
    return functools.reduce(function, arrays)


def _clipped_boxes(corners, camera, near):
    """Of the part of each face beyond the near plane: its corners there, and where its edges pass through the plane."""
    points, reach = [], jnp.zeros_like(corners[0][0])
    some = crossing = reach > 0
    for k in range(3):
        (x, y, z), (x1, y1, z1) = corners[k], corners[(k + 1) % 3]
        front = z >= near
        crosses = front != (z1 >= near)
        t = (near - z) / jnp.where(crosses, z1 - z, 1.0)
        safe = jnp.where(front, z, 1.0)
        points.append((x / safe, y / safe, front))
        points.append(((x + t * (x1 - x)) / near, (y + t * (y1 - y)) / near, crosses))
        reach = jnp.maximum(reach, jnp.abs(x) + jnp.abs(y) + jnp.abs(z))
        some, crossing = some | front, crossing | crosses
    # a crossing is off by a rounding of the whole edge, which the division by a small `near` magnifies
    error = jnp.where(crossing, _ROUNDINGS * jnp.finfo(reach.dtype).eps * reach / near, 0.0)
    return _boxes_of_plane(points, error * jnp.max(jnp.abs(camera.focal)), camera), some


def _boxes_of_plane(points, error, camera):
    """Boxes around points (x, y, whether it counts) of the normalised plane."""
    height, width = camera.size
    sides = []
    for axis, limit in ((0, width), (1, height)):
        at = [(point[axis] * camera.focal[axis] + camera.principal[axis], point[2]) for point in points]
        low = _fold(jnp.minimum, [jnp.where(counts, v, jnp.inf) for v, counts in at])
        high = _fold(jnp.maximum, [jnp.where(counts, v, -jnp.inf) for v, counts in at])
        size = jnp.maximum(jnp.abs(low), jnp.abs(high)) + jnp.abs(camera.principal[axis]) + limit
        slack = jnp.minimum(_SLACK + _ROUNDINGS * jnp.finfo(low.dtype).eps * size + error, _MOST_SLACK)
        first = jnp.clip(jnp.ceil(low - slack - 0.5), 0, limit)
        last = jnp.clip(jnp.floor(high + slack - 0.5) + 1, 0, limit)
        unknown = jnp.isnan(low) | jnp.isnan(high)  # overflow on the way: the whole image
        first, last = jnp.where(unknown, 0, first), jnp.where(unknown, limit, last)
        sides.append((first.astype(jnp.int32), last.astype(jnp.int32)))
    (left, right), (top, bottom) = sides
    return jnp.stack([left, top, right, bottom], 1)


def _cone_boxes(corners, directions, valid, size):
    """Boxes of the tiles whose cone of rays meets the face's cone of directions; for any lens.

    A cone is (unit axis, sine and cosine of half its angle). Angles are compared by chords, |u - v| = 2 sin(angle / 2),
    which keeps its digits where the cosine loses them.
    """
    face_axes, face_sine, everywhere = _face_cones(corners)
    face_cosine = jnp.sqrt(jnp.maximum(1 - face_sine**2, 0.0))
    tile_axes, tile_sine, some = _tile_cones(directions, valid)
    columns = grid(size)[1]
    count = len(tile_sine)

    def visit(tile, boxes):
        axis, sine = tile_axes[tile], tile_sine[tile]
        chord = sum((face_axes[k] - axis[k]) ** 2 for k in range(3))
        # sine of half the sum of both angles, as long as that sum is below 180 degrees
        reach = sine * face_cosine + jnp.sqrt(jnp.maximum(1 - sine**2, 0.0)) * face_sine
        whole = sine > face_cosine  # the two angles together exceed 180 degrees
        meets = some[tile] & (everywhere | whole | (chord <= 4 * reach**2))
        x, y = tile % columns * TILE, tile // columns * TILE
        left, top, right, bottom = boxes
        return (
            jnp.where(meets, jnp.minimum(left, x), left),
            jnp.where(meets, jnp.minimum(top, y), top),
            jnp.where(meets, jnp.maximum(right, x + TILE), right),
            jnp.where(meets, jnp.maximum(bottom, y + TILE), bottom),
        )

    none = jnp.zeros_like(face_sine, jnp.int32)
    most = max(size) + TILE
    left, top, right, bottom = lax.fori_loop(0, count, visit, (none + most, none + most, none, none))
    right, bottom = jnp.minimum(right, size[1]), jnp.minimum(bottom, size[0])
    return jnp.where((right > left)[:, None], jnp.stack([left, top, right, bottom], 1), 0)


def _face_cones(corners):
    """Axes (x, y, z each [f]), sines of half the angle, and which faces have no cone: those the camera is close to."""
    unit, whole = [], jnp.zeros_like(corners[0][0], bool)
    tiny = jnp.finfo(corners[0][0].dtype).tiny ** 0.5
    for x, y, z in corners:
        norm = jnp.sqrt(x * x + y * y + z * z)
        whole |= norm <= tiny
        unit.append(tuple(v / jnp.where(norm > tiny, norm, 1.0) for v in (x, y, z)))
    middle = [a + b + c for a, b, c in zip(*unit, strict=True)]
    length = jnp.sqrt(sum(v * v for v in middle))
    axis = [v / jnp.where(length > tiny, length, 1.0) for v in middle]
    chords = [sum((v - a) ** 2 for v, a in zip(corner, axis, strict=True)) for corner in unit]
    chord = jnp.sqrt(_fold(jnp.maximum, chords))
    return axis, jnp.minimum(0.5 * chord + _CONE_SLACK, 1.0), whole | (chord > _WIDE) | (length <= tiny)


def _tile_cones(directions, valid):
    """Axes [t, 3], sines of half the angle, and which tiles have a pixel that sees anything."""
    rays = to_tiles(jnp.where(valid[..., None], directions, 0.0))
    drawn = to_tiles(valid[..., None])[:, 0]
    middle = jnp.sum(rays, 2)
    length = jnp.linalg.norm(middle, axis=1, keepdims=True)
    axis = middle / jnp.where(length > 0, length, 1.0)
    chord = jnp.sqrt(jnp.max(jnp.where(drawn, jnp.sum((rays - axis[..., None]) ** 2, 1), 0.0), 1))
    return axis, jnp.minimum(0.5 * chord + _CONE_SLACK, 1.0), jnp.any(drawn, 1)
