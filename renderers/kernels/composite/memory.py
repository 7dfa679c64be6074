"""Memory that the host kernels take beside the buffers that XLA gives them.

XLA's own analysis of a compiled program knows nothing of it. Stated from the allocations of `cpu_tiles.py` and
`cpu.py`; `tests/renderers/gaussians/preflight_test.py` holds the sum against what a process is seen to take.
"""

from renderers.kernels.tiling import grid


def native_bytes(
    num_gaussians: int, size: tuple[int, int], channels: int, intersections: int, *, gradients: bool
) -> int:
    """Most bytes that a call of the cpu backend holds at once.

    Args:
      num_gaussians: given to the call, visible or not.
      size: image (height, width).
      channels: features a Gaussian, depth included.
      intersections: (Gaussian, tile) pairs; runs of tiles, of which there are fewer, are taken to be as many.
      gradients: whether the backward pass runs too, which holds a gradient row an intersection.
    """
    from renderers.kernels.composite.cpu import GEOMETRY  # imports Numba, an extra

    rows, columns = grid(size)
    ids = 4 * intersections
    runs = 8 * num_gaussians + 8 * intersections  # where each Gaussian's begin; first and last tile of each
    sort = 16 * num_gaussians  # keys and order, read and written
    offsets = 24 * (rows * columns + 1)
    blended = 4 * (GEOMETRY + channels) * intersections if gradients else 0
    return offsets + ids + max(runs + sort, blended)
