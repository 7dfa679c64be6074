"""Solids of the block world: one signed distance without branches for box, sphere, cylinder, cone, torus and the rest.

Each solid is a rectangle with rounded corners in its own x z plane, solid or a shell, extruded along its own y with
rounded edges and narrowing on the way up. Distances are exact for solids that do not narrow, lower bounds beside the
apex of those that do. The Lipschitz constant is 1, but above the rim of solids that narrow: up to 1.2 for cones, 1.4
for flat roofs.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SOLID = 25.0  # half thickness of a "shell" that is none
_AWAY = 50.0  # where the missing solids of an assembly are
_TINY = 1e-12  # under square roots, so that gradients are finite where a length is 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Assembly:
    """Solids joined to one object; world frame (+Y up, front +Z), metres.

    Attributes:
      centers: of the solids.
      half_sizes: along each solid's own axes.
      world_from_solid: rotations.
      corner_radii: of the rectangle across y; at most its smaller half size.
      edge_radii: between the mantle and the two ends.
      half_shells: half thickness of a wall inside of the mantle; SOLID for none.
      tapers: by how much the mantle moves inwards per metre upwards.
      colors: base colours in [0, 1].
    """

    centers: Float[Array | np.ndarray, "*b p 3"]
    half_sizes: Float[Array | np.ndarray, "*b p 3"]
    world_from_solid: Float[Array | np.ndarray, "*b p 3 3"]
    corner_radii: Float[Array | np.ndarray, "*b p"]
    edge_radii: Float[Array | np.ndarray, "*b p"]
    half_shells: Float[Array | np.ndarray, "*b p"]
    tapers: Float[Array | np.ndarray, "*b p"]
    colors: Float[Array | np.ndarray, "*b p 3"]


def padded(assembly: Assembly, count: int) -> Assembly:
    """The object with solids far away added until there are `count`, as numpy arrays."""
    missing = count - len(assembly.centers)
    if missing < 0:
        raise ValueError(f"an object of {len(assembly.centers)} solids does not fit into {count}")
    fill = {"centers": _AWAY, "half_shells": SOLID, "half_sizes": 0.05}

    def pad(name):
        rows = np.asarray(getattr(assembly, name), np.float32)
        return np.concatenate([rows, np.full((missing, *rows.shape[1:]), fill.get(name, 0.0), np.float32)])

    names = [field.name for field in dataclasses.fields(Assembly)]
    out = Assembly(**{name: pad(name) for name in names})
    out.world_from_solid[len(out.centers) - missing :] = np.eye(3, dtype=np.float32)
    return out


def stacked(assemblies: typing.Sequence[Assembly], count: int | None = None) -> Assembly:
    """Several objects as one record with a leading axis, all with as many solids as the largest, or as `count`."""
    count = max(len(assembly.centers) for assembly in assemblies) if count is None else count
    rows = [padded(assembly, count) for assembly in assemblies]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def distances(assembly: Assembly, x, y, z) -> list[Float[Array, " n"]]:
    """Signed distances to each solid of one object at points given by coordinate: the layout that XLA is fast with."""
    return [_distance(jax.tree.map(lambda leaf, k=k: leaf[k], assembly), x, y, z) for k in range(len(assembly.centers))]


def signed_distance(assembly: Assembly, points: Float[Array, "n 3"]) -> Float[Array, " n"]:
    """Distance to the surface of the union, negative inside (where it is a bound); metres, differentiable."""
    parts = distances(assembly, points[:, 0], points[:, 1], points[:, 2])
    return jnp.min(jnp.stack(parts), axis=0)


def nearest_colors(assembly: Assembly, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Base colours of the solids that are nearest to the points."""
    parts = jnp.stack(distances(assembly, points[:, 0], points[:, 1], points[:, 2]))
    return jnp.asarray(assembly.colors)[jnp.argmin(parts, axis=0)]


def _distance(solid, x, y, z):
    turn, half = solid.world_from_solid, solid.half_sizes
    x, y, z = x - solid.centers[0], y - solid.centers[1], z - solid.centers[2]
    x, y, z = (x * turn[0, i] + y * turn[1, i] + z * turn[2, i] for i in range(3))
    across = _rounded(jnp.abs(x) - half[0], jnp.abs(z) - half[2], solid.corner_radii)
    wall = jnp.abs(across + solid.half_shells) - solid.half_shells
    slope = solid.tapers
    mantle = (wall + slope * (y + half[1])) * jax.lax.rsqrt(1.0 + slope * slope)
    return _rounded(mantle, jnp.abs(y) - half[1], solid.edge_radii)


def _rounded(a, b, radius):
    """Distance to the corner of two half planes at signed distances a and b, rounded off."""
    a, b = a + radius, b + radius
    outside = jnp.sqrt(jnp.maximum(a, 0.0) ** 2 + jnp.maximum(b, 0.0) ** 2 + _TINY)
    return outside + jnp.minimum(jnp.maximum(a, b), 0.0) - radius
