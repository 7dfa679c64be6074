"""Where space is empty: nested grids of cells that remember the density found in them, and samples in the rest.

Level 0 fills the box given, level l a box 2^l times as large about the same centre; a point belongs to the finest level
whose box holds it (nerfacc, arXiv:2305.04966, section 4.3; Instant-NGP, arXiv:2201.05989, section E.2). Grids are
records and all functions pure: the same key and grid give the same grid, so that a resumed run is bit-equal.
"""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from renderers.cameras.camera import Camera, project_camera_points, to_camera_frame
from renderers.kernels.dispatch import Backend
from renderers.kernels.ray_march.api import march
from renderers.kernels.ray_march.reference import cell_of
from renderers.volumes import packed
from renderers.volumes.packed import PackedSamples
from renderers.volumes.samplers import ray_box

Density = Callable[[Array], Array]
_UNSEEN = -1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class OccupancyGrid:
    """Nested grids of cells.

    Attributes:
      density: largest density (per metre) met in each cell of late, fading; -1 in cells that no camera sees, and in
        those of coarser levels that lie in the finer level's box.
      occupied: cells in which samples are taken.
      box: lowest and highest corner of level 0, world units.
    """

    density: Float[Array, "l x y z"]
    occupied: Bool[Array, "l x y z"]
    box: Float[Array, "2 3"]


def full_grid(box: Float[Array, "2 3"], *, resolution: int = 128, levels: int = 1) -> OccupancyGrid:
    """A grid that rules nothing out yet.

    Args:
        box: corners of level 0.
        resolution: cells along each side of each level.
        levels: how many; the last reaches 2^(levels - 1) times as far as the box.
    """
    edges = jnp.arange(resolution + 1) / resolution * 2 - 1
    inner = (edges[:-1] >= -0.5) & (edges[1:] <= 0.5)
    covered = inner[:, None, None] & inner[None, :, None] & inner[None, None, :]
    occupied = jnp.stack([jnp.ones_like(covered), *[~covered] * (levels - 1)])
    return OccupancyGrid(density=jnp.where(occupied, 0.0, _UNSEEN).astype(box.dtype), occupied=occupied, box=box)


def outer_box(grid: OccupancyGrid) -> Float[Array, "2 3"]:
    """Corners of the coarsest level."""
    center, half = 0.5 * (grid.box[0] + grid.box[1]), 0.5 * (grid.box[1] - grid.box[0])
    reach = half * 2.0 ** (grid.density.shape[0] - 1)
    return jnp.stack([center - reach, center + reach])


def is_occupied(grid: OccupancyGrid, points: Float[Array, "*n 3"]) -> Bool[Array, "*n"]:
    """Whether points lie in occupied cells; nothing outside the coarsest level does."""
    cell, within = cell_of(points, grid.box, grid.density.shape)
    return within & grid.occupied.ravel()[cell]


def cell_points(grid: OccupancyGrid, cells: Int[Array, " k"], places: Float[Array, "k 3"]) -> Float[Array, "k 3"]:
    """Points in cells, numbered as `density.ravel()` is; places in [0, 1]^3 of the cell, 0.5 is its centre."""
    level, *index = jnp.unravel_index(cells, grid.density.shape)
    counts = jnp.asarray([grid.density.shape[1:]], places.dtype)
    relative = (jnp.stack(index, -1) + places) / counts * 2 - 1
    center, half = 0.5 * (grid.box[0] + grid.box[1]), 0.5 * (grid.box[1] - grid.box[0])
    return center[None] + half[None] * relative * (2.0**level)[:, None].astype(places.dtype)


def update_some(
    key: Key[Array, ""], grid: OccupancyGrid, density: Density, num_cells: int, *, threshold: float, decay: float = 0.95
) -> OccupancyGrid:
    """Ask the field in some cells, half of them any, half of them occupied ones, at a random point of each.

    Args:
        key: consumed.
        grid: as it is.
        density: of points `[k, 3]`, per metre.
        num_cells: asked, static; a cell that is drawn twice counts with the larger answer.
        threshold: density above which a cell is occupied, or the mean density of all cells if that is less. An alpha of
            0.01 in a step is a threshold of 0.01 / step.
        decay: what is left of what a cell remembers each time that it is asked.
    """
    any_key, occupied_key, place_key = jax.random.split(key, 3)
    total, half = grid.density.size, num_cells // 2
    anywhere = jax.random.randint(any_key, (num_cells - half,), 0, total)
    number = jnp.cumsum(grid.occupied.ravel(), dtype=jnp.int32)
    rank = (jax.random.uniform(occupied_key, (half,)) * number[-1]).astype(jnp.int32)
    held = jnp.minimum(jnp.searchsorted(number, rank, side="right"), total - 1)  # none is occupied: the last
    cells = jnp.concatenate([anywhere, held])
    answers = density(cell_points(grid, cells, jax.random.uniform(place_key, (num_cells, 3), grid.box.dtype)))
    return _updated(grid, cells, answers, threshold, decay)


def update_all(
    key: Key[Array, ""],
    grid: OccupancyGrid,
    density: Density,
    *,
    threshold: float,
    decay: float = 0.95,
    chunk: int = 1 << 17,
) -> OccupancyGrid:
    """As `update_some`, in every cell, at most `chunk` at a time."""
    total = grid.density.size
    starts = jnp.arange(0, total, chunk, dtype=jnp.int32)

    def ask(start_and_key):
        start, key = start_and_key
        cells = jnp.minimum(start + jnp.arange(min(chunk, total), dtype=jnp.int32), total - 1)
        return density(cell_points(grid, cells, jax.random.uniform(key, (len(cells), 3), grid.box.dtype)))

    answers = lax.map(ask, (starts, jax.random.split(key, len(starts)))).ravel()[:total]
    return _updated(grid, jnp.arange(total, dtype=jnp.int32), answers, threshold, decay)


def _updated(grid, cells, answers, threshold, decay):
    before = grid.density.ravel()
    answers = lax.stop_gradient(answers).astype(before.dtype)
    met = jnp.full_like(before, _UNSEEN).at[cells].max(answers)
    shape = grid.density.shape
    asked = (met >= 0) & (before >= 0)
    after = jnp.where(asked, jnp.maximum(before * decay, met), before)
    occupied = _occupied(after, threshold)
    return dataclasses.replace(grid, density=after.reshape(shape), occupied=occupied.reshape(shape))


def _occupied(density, threshold):
    seen = density >= 0
    mean = jnp.sum(jnp.where(seen, density, 0.0)) / jnp.maximum(jnp.sum(seen), 1)
    return density > jnp.minimum(mean, threshold)


def without_unseen(grid: OccupancyGrid, cameras: Sequence[Camera], *, near: float = 0.0) -> OccupancyGrid:
    """The grid with the cells that no camera sees marked as empty for good.

    A cell counts as seen if the ball about it reaches into a camera's image, in front of `near` (camera z): generous,
    so that no cell of which any point is seen is lost. Distortion moves the image's border as it does points.

    Args:
        grid: any.
        cameras: of the photographs; loops over them.
        near: of the rays that will be rendered.
    """
    seen = jnp.zeros(grid.density.size, bool)
    for camera in cameras:
        seen = _seen_too(seen, grid, camera, near)
    density = jnp.where(seen.reshape(grid.density.shape), grid.density, _UNSEEN)
    occupied = grid.occupied & (density >= 0)
    return dataclasses.replace(grid, density=density, occupied=occupied)


@jax.jit
def _seen_too(seen, grid, camera, near):
    cells = jnp.arange(grid.density.size, dtype=jnp.int32)
    points = to_camera_frame(camera, cell_points(grid, cells, jnp.full((len(cells), 3), 0.5, grid.box.dtype)))
    level = cells // (grid.density.size // grid.density.shape[0])
    side = (grid.box[1] - grid.box[0]) / jnp.asarray(grid.density.shape[1:], grid.box.dtype)
    radius = 0.5 * jnp.linalg.norm(side) * (2.0**level).astype(grid.box.dtype)
    z, apart = points[:, 2], jnp.linalg.norm(points, axis=-1)
    pixels = project_camera_points(camera, points)
    far_enough = jnp.maximum(apart, 5 * radius)
    in_front = (apart if camera.model == "fisheye" else z) + radius > near
    if camera.model == "orthographic":
        width = radius
    elif camera.model == "pinhole":
        depth = jnp.maximum(z, 2 * radius)
        width, in_front = radius * far_enough / (depth * (depth - radius)), in_front & (z > 0)
    else:  # an angle, stretched around the axis as the equidistant lens does, at 90 degrees by pi / 2
        width = 0.5 * jnp.pi * radius / (far_enough - radius)
    reach = jnp.max(camera.focal) * width
    height, columns = camera.size
    inside = (pixels[:, 0] + reach >= 0) & (pixels[:, 0] - reach <= columns)
    inside &= (pixels[:, 1] + reach >= 0) & (pixels[:, 1] - reach <= height)
    return seen | (inside & in_front) | (apart <= 5 * radius)  # too near to say by its centre


def occupied_samples(
    key: Key[Array, ""],
    grid: OccupancyGrid,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    *,
    step: float,
    num_steps: int,
    capacity: int,
    cone: float = 0.0,
    longest_step: float = 1e10,
    near: float = 0.0,
    far: float = jnp.inf,
    jitter: bool = True,
    drawn: Bool[Array, " r"] | None = None,
    backend: Backend | None = None,
) -> PackedSamples:
    """Samples in occupied cells, of all rays in one buffer.

    Every ray walks from where it enters the coarsest box (or `near`) to where it leaves it (or `far`), step by step,
    and takes the steps whose middles lie in occupied cells. Nothing is differentiated.

    Args:
        key: consumed, whatever the jitter.
        grid: what to leave out.
        origins: of rays.
        directions: unit vectors.
        step: length of the steps, metres, or of the shortest where `cone` is above 0. Static, as what follows.
        num_steps: the most that a ray may have, taken or not. (diagonal of the coarsest box) / step + 1 is always
            enough without a cone.
        capacity: places in the buffer.
        cone: steps are that many times as long as they are far away, at least `step`; 1 / 256 is Instant-NGP's.
        longest_step: what the cone may grow to.
        near: distance along the ray before which nothing is taken.
        far: or behind which.
        jitter: move all steps of a ray by the same random part of a step.
        drawn: False leaves a ray without samples.
        backend: of the kernel; None takes the platform's default.

    Returns:
        Samples. `overflow` counts what found no place; rays that lost samples so, or whose steps ran out, are not
        `complete`.
    """
    entry, leave, hit = ray_box(origins, directions, outer_box(grid), near=near, far=far)
    first = jnp.clip(entry * cone, step, longest_step)
    shift = jax.random.uniform(key, entry.shape, entry.dtype) if jitter else 0.0
    hit = hit if drawn is None else hit & drawn
    taken = march(
        origins,
        directions,
        entry + shift * first,
        jnp.where(hit, leave, entry),
        grid.occupied,
        grid.box,
        num_steps=num_steps,
        capacity=capacity,
        shortest=step,
        longest=longest_step,
        cone=cone,
        backend=backend,
    )
    last = jnp.cumsum(taken.wanted)
    return PackedSamples(
        starts=taken.starts,
        ends=taken.ends,
        ray_index=taken.ray_index,
        counts=jnp.clip(capacity - (last - taken.wanted), 0, taken.wanted),
        overflow=jnp.maximum(last[-1] - capacity, 0),
        complete=(last <= capacity) & ~taken.ran_out,
    )


def visible(
    density: Float[Array, " m"], samples: PackedSamples, *, alpha_threshold: float = 0.0, early_stop: float = 1e-4
) -> Bool[Array, " m"]:
    """Samples that can be seen: of at least that alpha, and with at least that transmittance in front of them.

    `packed.prune` with this mask, after a first look at the density without gradients, spares the rest of the work.
    """
    alpha = 1 - jnp.exp(-density * (samples.ends - samples.starts))
    _, transmittance = packed.weights_from_density(density, samples)
    used = samples.ray_index < len(samples.counts)
    return lax.stop_gradient(used & (alpha >= alpha_threshold) & (transmittance >= early_stop))
