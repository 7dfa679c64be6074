"""The lattices of an encoding: how fine each level is, how many rows it has, and which of them are hashed."""

import dataclasses
import math

PRIMES = (1, 2654435761, 805459861)
_ROUNDING = 1e-9  # relative: 16 * growth^15 must give 2048, not 2049, for the growth that was made from 2048


@dataclasses.dataclass(frozen=True)
class HashLevels:
    """Levels of an encoding, static and hashable. See `hash_levels` and `dense_levels`.

    Attributes:
      resolutions: vertices along x, y, z of each level.
      sizes: rows of each level: all of its vertices (dense), or a power of two.

    Raises:
      ValueError: an impossible level.
    """

    resolutions: tuple[tuple[int, int, int], ...]
    sizes: tuple[int, ...]

    def __post_init__(self):
        if len(self.resolutions) != len(self.sizes) or not self.sizes:
            raise ValueError(f"expected a size for each level, got {len(self.sizes)} for {len(self.resolutions)}")
        for resolution, size in zip(self.resolutions, self.sizes, strict=True):
            if len(resolution) != 3 or min(resolution) < 2:
                raise ValueError(f"expected at least 2 vertices along each of 3 axes, got {resolution}")
            if size < 1 or (size & (size - 1) and size != math.prod(resolution)):
                raise ValueError(f"expected {math.prod(resolution)} rows (dense) or a power of two, got {size}")
        if self.num_rows >= 1 << 31:
            raise ValueError(
                f"a table of {self.num_rows} rows needs more than 32-bit indices; use fewer or coarser levels"
            )

    @property
    def num_levels(self) -> int:
        """How many."""
        return len(self.sizes)

    @property
    def num_rows(self) -> int:
        """Rows of the table, all levels together."""
        return sum(self.sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level."""
        return tuple(sum(self.sizes[:level]) for level in range(len(self.sizes)))

    @property
    def dense(self) -> tuple[bool, ...]:
        """Whether each vertex of a level has a row of its own."""
        return tuple(math.prod(r) <= size for r, size in zip(self.resolutions, self.sizes, strict=True))

    def first(self, count: int) -> "HashLevels":
        """The coarsest levels, whose rows come first in the table."""
        return HashLevels(self.resolutions[:count], self.sizes[:count])


def hash_levels(
    num_levels: int = 16,
    base_resolution: int = 16,
    finest_resolution: int | None = 2048,
    log2_table_size: int = 19,
    *,
    growth: float | None = None,
) -> HashLevels:
    """Geometric progression of cubic lattices, equations 2 and 3 of arXiv 2201.05989.

    Args:
      num_levels: at least 1.
      base_resolution: vertices along an axis of the coarsest level, at least 2.
      finest_resolution: of the last level; gives the growth. None if `growth` is given.
      log2_table_size: levels with more vertices than 2 to this power are hashed into as many rows.
      growth: factor from level to level, instead of `finest_resolution`.

    Raises:
      ValueError: numbers out of range.
    """
    if num_levels < 1 or base_resolution < 2 or not 1 <= log2_table_size <= 30:
        raise ValueError(
            "expected num_levels >= 1, base_resolution >= 2 and log2_table_size in 1..30; "
            f"got {num_levels}, {base_resolution}, {log2_table_size}"
        )
    if growth is None:
        finest = finest_resolution or 0
        if finest < base_resolution:
            raise ValueError(f"expected finest_resolution >= {base_resolution}, or a growth; got {finest_resolution}")
        growth = math.pow(finest / base_resolution, 1 / max(1, num_levels - 1))
    if growth < 1:
        raise ValueError(f"levels go from coarse to fine: expected a growth of at least 1, got {growth}")
    edges = [math.ceil(base_resolution * growth**level * (1 - _ROUNDING)) for level in range(num_levels)]
    sizes = tuple(min(edge**3, 1 << log2_table_size) for edge in edges)
    return HashLevels(tuple((edge, edge, edge) for edge in edges), sizes)


def dense_levels(*resolutions: tuple[int, int, int]) -> HashLevels:
    """Lattices of (nx, ny, nz) vertices with a row for each, x fastest: arrays [nz, ny, nx, f] after a reshape."""
    return HashLevels(resolutions, tuple(math.prod(resolution) for resolution in resolutions))
