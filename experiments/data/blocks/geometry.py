"""Exact geometry of the block world's objects, for evaluation: points on the surface, watertight meshes, inside tests.

All follows from the signed distances of `solids`, evaluated on the host in float64; nothing is approximated by a mesh
but `mesh` itself (and `volume`, which is the mesh's).

Points are where random lines cross the surface: isotropic lines through a ball meet every patch of a surface in
proportion to its area, whatever its shape (Cauchy and Crofton), so that the crossings are uniform by area and a surface
of area A within a ball of radius R is crossed A / (2 pi R^2) times a line. What lies inside of another solid is never
met, as the union's distance does not change its sign there.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.blocks import solids
from experiments.data.blocks.solids import Assembly
from renderers.meshes.extraction import marching_cubes
from renderers.meshes.mesh import Mesh
from renderers.meshes.textures import linear_from_srgb

_SIZES = (2, 4, 8)  # solids of an object, as programs are compiled for
_CHUNK, _MANY = 1 << 12, 1 << 16  # lines or points in a call; nodes of a grid
_STEPS = 24  # along lines in a call
_SHORTEST = 5e-4  # metres; a line that is inside or outside for less may miss both crossings
_BISECTIONS = 40
_CORRECTIONS = 4  # Newton steps from marching cubes to the surface
_MARGIN = 0.02  # metres around an object's box
_MOST_NODES = 512


def surface_points(
    assembly: Assembly, count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Independent points of an object's surface, uniform by area, within 1e-9 m of it.

    Args:
      assembly: one object.
      count: of points.
      rng: of the lines that find them.

    Returns:
      Points in metres, outward unit normals (that of a neighbouring side on an edge), and base colours in [0, 1];
      float64.
    """
    found = [np.zeros((0, 3))]
    lines = 0
    while (have := sum(map(len, found))) < count:
        # As many lines as the crossings so far make likely to be enough
        more = 2 * _CHUNK if lines == 0 else int(1.1 * (count - have) * lines / max(have, 1)) + 64
        more = min(more, 64 * _CHUNK)
        found.append(_crossings(assembly, *_random_lines(assembly, more, rng)))
        lines += more
        if lines > 10_000 and sum(map(len, found)) == 0:
            raise ValueError("no line of 10,000 meets the object's surface")
    points = np.concatenate(found)[:count]
    return points, normals(assembly, points), np.asarray(assembly.colors, np.float64)[nearest_solids(assembly, points)]


def surface_area(assembly: Assembly, lines: int, rng: np.random.Generator) -> float:
    """Area of the union's surface in square metres, by counting crossings; off by 1 % or so at 20,000 lines.

    Args:
      assembly: one object.
      lines: how many are cast.
      rng: of the lines.
    """
    _, radius = _ball(assembly)
    crossed = len(_crossings(assembly, *_random_lines(assembly, lines, rng)))
    return 2 * np.pi * radius**2 * crossed / lines


def signed_distances(assembly: Assembly, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n p"]:
    """Distance to each solid in metres, negative inside; float64. The union's is their minimum."""
    count = len(assembly.centers)
    return _by_chunks(_parts, assembly, points)[:, :count]


def inside(assembly: Assembly, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Whether points are within some solid of the object."""
    return signed_distances(assembly, points).min(axis=1) < 0


def nearest_solids(assembly: Assembly, points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Numbers of the solids that points are nearest to, or deepest in."""
    return signed_distances(assembly, points).argmin(axis=1)


def normals(assembly: Assembly, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit gradients of the union's distance, outward on the surface; float64."""
    slope = _by_chunks(_slope, assembly, points)
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)


def bounds(assembly: Assembly) -> Float[np.ndarray, "2 3"]:
    """Lower and upper corner of the box about all solids in metres; tight for solids along the axes."""
    reach = np.einsum("pij,pj->pi", np.abs(assembly.world_from_solid), assembly.half_sizes).astype(np.float64)
    centers = np.asarray(assembly.centers, np.float64)
    return np.stack([(centers - reach).min(axis=0), (centers + reach).max(axis=0)])


def mesh(assembly: Assembly, resolution: int = 128) -> Mesh:
    """The surface of the union as a watertight mesh with vertices on it, normals, and base colours at the vertices.

    Args:
      assembly: one object.
      resolution: nodes along the longest side of the object's box; what is thinner than two steps may be missing.

    Raises:
      ValueError: a resolution out of range.
    """
    if not 8 <= resolution <= _MOST_NODES:
        raise ValueError(f"expected a resolution of 8 to {_MOST_NODES} nodes, got {resolution}")
    low, high = bounds(assembly) + np.array([[-_MARGIN], [_MARGIN]])
    spacing = float(np.max(high - low)) / (resolution - 1)
    nodes = np.ceil((high - low) / spacing).astype(int) + 1
    high = low + (nodes - 1) * spacing
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, nodes, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    values = _by_chunks(_union, assembly, grid, chunk=_MANY).reshape(nodes)
    rough = marching_cubes(values, np.stack([low, high]), level=0.0, inside="below")
    points = _onto_surface(assembly, np.asarray(rough.vertices, np.float64), spacing)
    linear = np.asarray(linear_from_srgb(jnp.asarray(assembly.colors)))
    return Mesh(
        vertices=jnp.asarray(points, jnp.float32),
        faces=rough.faces,
        vertex_colors=jnp.asarray(linear[nearest_solids(assembly, points)]),
        normals=jnp.asarray(normals(assembly, points), jnp.float32),
    )


def volume(assembly: Assembly, resolution: int = 128) -> float:
    """Cubic metres within the union, those inside of the mesh of that resolution."""
    surface = mesh(assembly, resolution)
    a, b, c = np.moveaxis(np.asarray(surface.vertices, np.float64)[np.asarray(surface.faces)], 1, 0)
    return float(np.sum(a * np.cross(b, c)) / 6)  # the divergence theorem, by faces


def _onto_surface(assembly, points, spacing):
    """Newton steps along the gradient; a point that would leave its cell stays where it is."""
    moved = points
    for _ in range(_CORRECTIONS):
        distance = signed_distances(assembly, moved).min(axis=1)
        moved = moved - distance[:, None] * normals(assembly, moved)
    better = np.abs(signed_distances(assembly, moved).min(axis=1)) < np.abs(
        signed_distances(assembly, points).min(axis=1)
    )
    near = np.linalg.norm(moved - points, axis=1) < spacing
    return np.where((near & better)[:, None], moved, points)


def _ball(assembly):
    """Centre and radius of a ball about the object."""
    center = bounds(assembly).mean(axis=0)
    offsets = np.linalg.norm(assembly.centers - center, axis=1)
    return center, float(np.max(offsets + np.linalg.norm(assembly.half_sizes, axis=1)))


def _random_lines(assembly, count, rng):
    """Isotropic lines through the ball: where they enter, and their directions."""
    center, radius = _ball(assembly)
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # A uniform point of the disc across each direction, as a uniform one of the ball's great disc turned there
    across = np.cross(directions, rng.standard_normal((count, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    offset = radius * np.sqrt(rng.random(count))
    depth = np.sqrt(radius**2 - offset**2)
    origins = center + offset[:, None] * across - depth[:, None] * directions
    return origins, directions, 2 * depth


def _crossings(assembly, origins, directions, lengths):
    """Points where lines meet the surface, in the order of the lines."""
    slowest = 1.0 / _steepest(assembly)
    line, along = np.arange(len(origins)), np.zeros(len(origins))
    which, low, high = [], [], []
    while len(line):
        path = _by_chunks(_march, assembly, np.column_stack([origins[line], directions[line], along]), slowest)
        places, within = path[..., 0], path[..., 1] < 0
        row, step = np.nonzero(within[:, 1:] != within[:, :-1])
        which.append(line[row])
        low.append(places[row, step])
        high.append(places[row, step + 1])
        going = places[:, -1] < lengths[line]
        line, along = line[going], places[going, -1]
    which, low, high = (np.concatenate(parts) for parts in (which, low, high))
    order = np.argsort(which, kind="stable")
    rows = np.column_stack([origins[which], directions[which], low, high])[order]
    at = _by_chunks(_bisected, assembly, rows)
    return rows[:, :3] + at[:, None] * rows[:, 3:6]


def _steepest(assembly) -> float:
    """How much faster than the way the distance may grow: near the upper rim of solids that narrow, two slopes add."""
    narrowing = np.abs(np.asarray(assembly.tapers, np.float64))
    return float(np.max(np.sqrt(1 + narrowing / np.sqrt(1 + narrowing**2))))


def _by_chunks(function, assembly, rows, *rest, chunk=_CHUNK):
    """A function of an object and the rows of an array, in float64, by calls of few different shapes."""
    rows = np.asarray(rows, np.float64)
    size = next(size for size in (*_SIZES, len(assembly.centers)) if size >= len(assembly.centers))
    packed = solids.padded(assembly, size)
    parts = []
    with jax.enable_x64(True):
        packed = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), packed)
        for start in range(0, max(len(rows), 1), chunk):
            some = rows[start : start + chunk]
            filled = np.zeros((chunk, *rows.shape[1:]))
            filled[: len(some)] = some
            parts.append(np.asarray(function(packed, jnp.asarray(filled), *rest))[: len(some)])
    return np.concatenate(parts)


@jax.jit
def _parts(assembly, points):
    def one(solid):  # mapped over solids, not unrolled: programs of eight solids would take long to compile
        return solids.distances(jax.tree.map(lambda leaf: leaf[None], solid), *points.T)[0]

    return jax.vmap(one, out_axes=-1)(assembly)


@jax.jit
def _union(assembly, points):
    return jnp.min(_parts(assembly, points), axis=-1)


@jax.jit
def _slope(assembly, points):
    return jax.grad(lambda at: jnp.sum(_union(assembly, at)))(points)


@jax.jit
def _march(assembly, lines, slowest):
    """Places along lines and the distances there, `n s 2`; steps are as long as no surface can be in between."""
    origins, directions, along = lines[:, :3], lines[:, 3:6], lines[:, 6]

    def step(along, _):
        distance = _union(assembly, origins + along[:, None] * directions)
        onward = along + jnp.maximum(jnp.abs(distance) * slowest, _SHORTEST)
        return onward, jnp.stack([along, distance], axis=-1)

    # The last place is the first of the next call, so that no crossing falls between two
    _, path = jax.lax.scan(step, along, length=_STEPS)
    return jnp.swapaxes(path, 0, 1)


@jax.jit
def _bisected(assembly, rows):
    """Where along lines the sign changes between two places."""
    origins, directions, low, high = rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 7]

    def within(along):
        return _union(assembly, origins + along[:, None] * directions) < 0

    first = within(low)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        before = within(middle) == first
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return 0.5 * (low + high)
