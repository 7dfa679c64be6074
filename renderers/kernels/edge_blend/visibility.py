"""What is in front of a silhouette edge in a pixel, and what is behind it; decisions, without derivatives.

A pixel knows the face that its centre sees. Whether that face, or the next one on the way, still covers a point near by
is told by barycentrics of the point as the camera sees it, so that neither lens nor perspective matters.

Vectors are tuples of their components here: XLA turns those into vector instructions, and rows of three not.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera

Vector = tuple[Any, Any, Any]  # x, y, z, arrays of one shape, in the camera's frame
BOUNDARY = -1  # in place of the vertex across an edge that has none
CURVATURE = 1.5  # a smooth surface leaves its tangent plane by half of what the plane itself sinks to the rim


class Surface(NamedTuple):
    """A mesh as a camera has it.

    Attributes:
      points: camera frame.
      faces: rows of points.
      opposite: vertex across each edge, k of the edge from corner k to k + 1; BOUNDARY where there is none.
      face_index: of each pixel, -1 where empty.
    """

    points: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    opposite: Int[Array, "f 3"]
    face_index: Int[Array, "h w"]


class Cover(NamedTuple):
    """What the surface at one pixel is to a point that lies at most a pixel or two away from the pixel's centre.

    Attributes:
      empty: there is no surface.
      covers: it goes on to the point's place in the image.
      ends: its outline lies between.
      touches: it shares a vertex with the edge in question.
      distance: from the point to the surface, along z or in units of the point's depth; negative where it is nearer.
      margin: what of that distance may be its curvature, or the size of pixels.
    """

    empty: Bool[Array, " n"]
    covers: Bool[Array, " n"]
    ends: Bool[Array, " n"]
    touches: Bool[Array, " n"]
    distance: Float[Array, " n"]
    margin: Float[Array, " n"]


def components(vectors: Float[Array, "n 3"]) -> Vector:
    """x, y and z of vectors in rows."""
    return vectors[:, 0], vectors[:, 1], vectors[:, 2]


def at(points: Float[Array, "v 3"], index: Int[Array, "*n"]) -> Vector:
    """x, y and z of some points."""
    return points[:, 0][index], points[:, 1][index], points[:, 2][index]


def side_of_edge(camera: Camera, start: Vector, end: Vector, point: Vector) -> Float[Array, " n"]:
    """Positive where the camera sees a point to the left (pixel axes) of the line through start and end.

    Of points in front of the camera; a line's plane through the camera's centre tells sides for the others, too.
    """
    along, offset = _minus(end, start), _minus(point, start)
    if camera.model == "orthographic":
        return along[0] * offset[1] - along[1] * offset[0]
    return _dot(_cross(start, along), offset)


def silhouette_edges(
    points: Float[Array, "v 3"], faces: Int[Array, "f 3"], opposite: Int[Array, "f 3"], camera: Camera
) -> Bool[Array, "f 3"]:
    """Which edges of faces are on an outline, hidden ones included: the camera sees both faces to one side.

    Of the two faces at an edge one has it. Not differentiable.

    Args:
      points: camera frame.
      faces: rows of points; edge k joins corners k and k + 1.
      opposite: vertex across each edge.
      camera: with its lens; the pose is not read.
    """
    corners = [at(points, faces[:, k]) for k in range(3)]
    turn = side_of_edge(camera, *corners)
    outlines = []
    for k in range(3):
        own, other = faces[:, (k + 2) % 3], opposite[:, k]
        beyond = side_of_edge(camera, corners[k], corners[(k + 1) % 3], at(points, jnp.maximum(other, 0)))
        # two faces on the same three vertices, back to back: the one that faces the camera
        first = (own < other) | ((own == other) & (turn < 0))
        outlines.append(jnp.where(other < 0, True, (beyond * turn > 0) & first))
    return jnp.stack(outlines, 1) & (turn != 0)[:, None]


def cover(
    surface: Surface,
    camera: Camera,
    index: Int[Array, " n"],
    point: Vector,
    reach: Float[Array, " n"],
    edge: tuple[Int[Array, " n"], Int[Array, " n"]],
) -> Cover:
    """How the surface that pixels see relates to points.

    Args:
      surface: the mesh.
      camera: with its lens.
      index: faces of the pixels, -1 for empty ones.
      point: camera frame.
      reach: distances in the image between the points and the centres of the pixels, pixels.
      edge: vertices of the edges that the points lie on.
    """
    rows = jnp.maximum(index, 0)
    vertices = [surface.faces[:, k][rows] for k in range(3)]
    corners = [at(surface.points, vertex) for vertex in vertices]
    turn, sides = _sides(camera, corners, point)
    inside = (sides[0] >= 0) & (sides[1] >= 0) & (sides[2] >= 0)
    lowest = jnp.minimum(jnp.minimum(sides[0], sides[1]), sides[2])
    is_first, is_second = sides[0] == lowest, sides[1] == lowest

    def turned(values):
        """Of three by corner, those that begin at the edge which the way to the point crosses."""
        first, second, third = values
        shifts = (first, second, third), (second, third, first), (third, first, second)
        return tuple(jnp.where(is_first, x, jnp.where(is_second, y, z)) for x, y, z in shifts)

    a, b, c = zip(*(turned([corner[axis] for corner in corners]) for axis in range(3)), strict=True)
    beyond = turned([surface.opposite[:, k][rows] for k in range(3)])[0]
    next_corner = at(surface.points, jnp.maximum(beyond, 0))
    # both to one side: the surface turns back here
    rim = side_of_edge(camera, a, b, next_corner) * side_of_edge(camera, a, b, c) >= 0
    ends = ~inside & ((beyond == BOUNDARY) | rim)
    _, next_sides = _sides(camera, (b, a, next_corner), point)
    inside_next = (next_sides[0] >= 0) & (next_sides[1] >= 0) & (next_sides[2] >= 0)
    stays = inside | ends
    last = tuple(jnp.where(stays, own, other) for own, other in zip(c, next_corner, strict=True))
    distance, slope = _ahead(camera, (a, b, last), point)
    touches = jnp.zeros_like(inside)
    for end in edge:
        touches |= (vertices[0] == end) | (vertices[1] == end) | (vertices[2] == end) | (~stays & (beyond == end))
    margin = CURVATURE * (reach + 0.5) * (1 + slope) / jnp.min(jnp.abs(camera.focal))
    return Cover(index < 0, inside | (~ends & inside_next), ends, touches, distance, margin)


def point_on_edge(camera: Camera, start: Vector, end: Vector, share: Float[Array, " n"]) -> Vector:
    """The camera-frame point at a share of the way that an edge takes in the image."""
    if camera.model == "pinhole":
        near, far = share * start[2], (1 - share) * end[2]
        total = near + far
        share = jnp.where(total > 0, near / jnp.where(total > 0, total, 1.0), share)
    return tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))


def moved_across(camera: Camera, start: Vector, end: Vector, point: Vector, pixels: float) -> Vector:
    """A point moved to the right of the edge from start to end, as the image has it, by so many pixels."""
    if camera.model == "orthographic":
        along = _minus(end, start)
        across, depth = (along[1], -along[0], jnp.zeros_like(along[0])), 1.0
    else:
        across, depth = _cross(end, start), _length(point)
    length = _length(across)
    step = pixels / jnp.min(jnp.abs(camera.focal)) * depth / jnp.where(length > 0, length, 1.0)
    return tuple(p + step * a for p, a in zip(point, across, strict=True))


def _sides(camera, corners, point):
    """Which way round corners go, and on which side of their three edges a point is: positive within."""
    turn = jnp.sign(side_of_edge(camera, *corners))
    return turn, [turn * side_of_edge(camera, corners[k], corners[(k + 1) % 3], point) for k in range(3)]


def _ahead(camera, corners, point):
    """Distance from points to the planes of faces in the direction of view, and the planes' slopes against it."""
    normal = _cross(_minus(corners[1], corners[0]), _minus(corners[2], corners[0]))
    orthographic = camera.model == "orthographic"
    across = normal[2] if orthographic else _dot(normal, point)
    length = _length(normal) * (1.0 if orthographic else _length(point))
    cosine = jnp.abs(across) / jnp.where(length > 0, length, 1.0)
    cosine = jnp.maximum(cosine, 1e-4)  # planes seen edge-on
    distance = _dot(normal, _minus(corners[0], point)) / jnp.where(across != 0, across, 1.0)
    return distance, jnp.sqrt(jnp.maximum(1 - cosine * cosine, 0.0)) / cosine


def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _length(a):
    return jnp.sqrt(_dot(a, a))
