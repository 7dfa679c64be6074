"""The hand-written derivatives whose signs are flipped, and how the named test files judge them.

An error is that of the test's own comparison: below 1 the test passes.
"""

import dataclasses
import functools
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from renderers.kernels.composite import blocks
from renderers.kernels.edge_blend import cpu_edges, cpu_handlers, cpu_lens
from renderers.kernels.lanes_numba import WIDTH
from tests.renderers.kernels.composite import backward_test, finite_differences
from tests.renderers.kernels.edge_blend import conformance_test as outlines
from tests.renderers.kernels.edge_blend import cpu_edges_test, scenes
from tests.renderers.kernels.hash_encode import conformance_test as hashes
from tests.renderers.kernels.plane_sample import conformance_test as planes
from tests.renderers.kernels.triangle_raster import backward_test as faces

_KERNELS = "renderers.kernels."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A module whose backward pass is broken, one term at a time.

    Attributes:
      module: below `renderers.kernels`.
      functions: of the module, that hold derivatives.
      test: the file that judges the real module in the same way.
      error: of a broken module; the test passes below 1.
      indices: names that count or index in this module.
      no_terms: operands, and names that are assigned to, that are no derivative or whose sign changes nothing; why.
      beneath: modules that are loaded anew, in order, to stand on the broken one; `error` is given the last.
      interpreted: Numba functions run as plain Python, which for scalar code is quicker than to compile it.
    """

    module: str
    functions: tuple[str, ...]
    test: str
    error: Callable[[types.ModuleType], float]
    indices: frozenset[str] = frozenset()
    no_terms: dict[str, str] = dataclasses.field(default_factory=dict)
    beneath: tuple[str, ...] = ()
    interpreted: bool = False


def _composite(backend, module):
    if backend == "xla":
        module.CHUNK = 4  # the pass unrolls a chunk: this compiles four times faster
    if backend == "pallas_tpu_vjp":
        module.tpu_blocks = lambda: blocks.TpuBlocks(chunk=128, step=8)
    run, _ = backward_test.PASSES[backend]
    return finite_differences.largest_error(run(module)) / backward_test.TOLERANCES[backend]


def _triangles(module):
    return max(faces.largest_error(module, projection) for projection in faces.PROJECTIONS) / faces.TOLERANCE


def _lenses(module):
    return max(cpu_edges_test.largest_error(module, lens) for lens in scenes.LENSES)


def _outlines(module):
    """As `conformance_test._assert_agrees` compares gradients of all scenes under a pinhole."""
    camera, near, worst = scenes.camera("pinhole"), jnp.asarray(outlines.NEAR, jnp.float32), 0.0
    codes, lens = np.asarray(cpu_handlers._coded(camera)), np.asarray(cpu_handlers._lens_numbers(camera, near))
    for name in scenes.SCENES:
        values, points, triangles, opposite, index, weights = scenes.inputs(name, "pinhole")
        edges, count = np.zeros(3 * len(triangles), np.int32), np.zeros(1, np.int32)
        cpu_edges.outline_edges(points, triangles, opposite, codes, edges, count)
        flat = values.reshape(-1, values.shape[-1])
        found = [np.full(np.shape(a), np.nan, np.float32) for a in (flat, points, lens)]
        module.gradients(
            flat, points, triangles, opposite, index, lens, codes, edges, count[0], weights.reshape(flat.shape), *found
        )
        _, of_values, of_points, of_camera = outlines._truth(name, "pinhole")
        truth = (of_values.reshape(flat.shape), of_points, of_camera.focal, of_camera.principal)
        split = [found[2][begin : begin + 2] for begin in (cpu_lens.FOCAL, cpu_lens.PRINCIPAL)]
        for one, wanted in zip((*found[:2], *split), truth, strict=True):
            worst = _worse(worst, np.abs(one - wanted).max() / (1e-4 * max(1, np.abs(wanted).max())))
    return worst


def _worse(worst, error):
    return float("inf") if np.isnan(error) else max(worst, float(error))


def _to_second_order(sums, at, table, g, directions, truth, bounds):
    """Features, gradients and gradients of gradients, put together from a module's three sums."""
    gather, scatter, contract = sums
    along, change = directions
    found = (
        gather(at, table, None),
        contract(at, table, g, None),
        scatter(at, g, None),
        contract(at, table, g, along) + contract(at, change, g, None),
        scatter(at, g, along),
        gather(at, table, along) + gather(at, change, None),
    )
    worst = 0.0
    for one, wanted, bound in zip(found, truth, bounds, strict=True):
        worst = _worse(worst, np.abs(one - wanted).max() / (bound * np.abs(wanted).max()))
    return worst


def _hash_encoding(module):
    """As `conformance_test` compares the row of cpu to the second order, and one feature with three."""
    levels, width = hashes.LEVELS, 2
    (row,) = (row for row in hashes.ROWS if row.backend == "cpu")
    at, table, g, directions = hashes.inputs(levels, width)
    kinds = zip(levels.resolutions, levels.offsets, levels.sizes, levels.dense, strict=True)
    columns = np.array([[*resolution, *rest] for resolution, *rest in kinds], np.int32)
    threads, n = np.int32(2), len(at)

    def padded(points):
        return np.zeros((3, 0), np.float32) if points is None else np.pad(points.T, ((0, 0), (0, -n % WIDTH)))

    def gather(at, table, along):
        out = np.full((n, levels.num_levels * width), np.nan, np.float32)
        module.gather(padded(at), table.ravel(), columns, padded(along), threads, out)
        return out

    def scatter(at, g, along):
        out = np.full(levels.num_rows * width, np.nan, np.float32)
        module.scatter(padded(at), g, columns, padded(along), threads, out)
        return out.reshape(-1, width)

    def contract(at, table, g, along):
        out = np.full(padded(at).shape, np.nan, np.float32)
        module.contract(padded(at), table.ravel(), g, columns, padded(along), threads, out)
        return out[:, :n].T

    truth = jax.tree.leaves(hashes._evaluated("reference", "float64", levels, width))
    bounds = [row.first] * 3 + [row.second] * 3
    worst = _to_second_order((gather, scatter, contract), at, table, g, directions, truth, bounds)
    return worst if hashes.is_feature_by_feature(module) else float("inf")


def _plane_sampling(module):
    """As `conformance_test.test_derivatives_to_the_second_order` compares the row of cpu."""
    texels, at, g = planes.inputs()
    change, along = planes.directions()
    count, n, channels = g.shape
    sizes = np.array([count, *planes.SIZE, 2], np.int32)

    def rows(direction):
        return np.zeros((0, 2), np.float32) if direction is None else direction.reshape(-1, 2)

    def gather(at, texels, along):
        out = np.full((count * n, channels), np.nan, np.float32)
        module.gather(sizes, at.reshape(-1, 2), rows(along), texels.ravel(), out)
        return out.reshape(g.shape)

    def scatter(at, g, along):
        out = np.full(texels.size, np.nan, np.float32)
        module.scatter(sizes, at.reshape(-1, 2), rows(along), g.reshape(-1, channels), out)
        return out.reshape(texels.shape)

    def contract(at, texels, g, along):
        out = np.full((count * n, 2), np.nan, np.float32)
        module.contract(sizes, at.reshape(-1, 2), rows(along), texels.ravel(), g.reshape(-1, channels), out)
        return out.reshape(at.shape)

    features, (to_texels, to_at), (texels_twice, at_twice, g_twice) = planes._evaluated(*planes.ROWS[0])
    truth = features, to_at, to_texels, at_twice, texels_twice, g_twice
    return _to_second_order((gather, scatter, contract), at, texels, g, (along, change), truth, [2e-5] * 6)


_REGISTERS = {
    "_ZERO": "zero",
    "m": "a size",
    "lanes": "a size",
    "(lanes, summed, rest)": "a size, and zeros",
    "n": "a size",
    "count": "a size",
    "level": "an input",
    "last": "a place",
    "to": "a place",
    "(n, width)": "sizes",
    "(n, count, m)": "sizes",
    "(n, parts)": "sizes",
    "width": "a size",
    "(first, last)": "places",
    "(at, w)": "a place, and a weight that `_store_directed` made",
    "(at, value)": "a place, and zero",
    "(upper, lower)": "masks",
    "(x0, y0, z0, m)": "rests of one, and a size",
}
TARGETS = {
    "composite/reference": Target(
        module="composite.reference",
        functions=("_at_pixels_backward",),
        test="composite/backward_test.py",
        error=functools.partial(_composite, "reference"),
        no_terms={},
    ),
    "composite/xla": Target(
        module="composite.xla",
        functions=("backward",),
        test="composite/backward_test.py",
        error=functools.partial(_composite, "xla"),
        no_terms={
            "rows": "inputs, packed",
            "((image, transmittance), (g_image, g_transmittance))": "inputs, unpacked",
            "((pixels, in_image), end)": "pixel centres and the run's end",
            "state": "what the loop starts from, masks among it",
            "tiles": "indices",
            "empty": "zeros",
            "old": "rows of later tiles, still zero when a chunk reaches into them",
            "opacity": "used as a divisor, and replaced where it is not positive",
        },
    ),
    "composite/cpu": Target(
        module="composite.cpu",
        functions=("backward", "_load_tile", "_sum_by_gaussian"),
        test="composite/backward_test.py",
        error=functools.partial(_composite, "cpu"),
        no_terms={"tile": "an index", "per_row": "zeros", "row": "a view to write to"},
    ),
    "composite/pallas_gpu_vjp": Target(
        module="composite.pallas_gpu_vjp",
        functions=("backward", "visit", "add"),
        test="composite/backward_test.py",
        error=functools.partial(_composite, "pallas_gpu_vjp"),
        no_terms={
            "((image, transmittance), (g_image, g_transmittance))": "inputs, unpacked",
            "gaussian": "an index",
            "row": "an index",
        },
    ),
    "composite/pallas_tpu_vjp": Target(
        module="composite.pallas_tpu_vjp",
        functions=("backward", "_sum_by_gaussian", "_backward_kernel", "_step"),
        test="composite/backward_test.py",
        error=functools.partial(_composite, "pallas_tpu_vjp"),
        no_terms={
            "((image, transmittance), (g_image, g_transmittance))": "inputs, unpacked",
            "rows": "inputs, packed",
            "drawn": "a mask",
            "blocks": "sizes",
            "call": "a function",
            "part": "a size",
            "taken": "indices",
            "empty": "zeros",
            "pixels": "pixel centres",
            "departing": "a function",
            "weights[...]": "zeros",
            "sums[...]": "zeros",
            "here": "indices",
            "after": "the state after a chunk, unpacked later",
            "slot": "an index",
            "walk": "where to read",
            "over_pixels": "a function",
        },
    ),
    "triangle_raster/cpu_surface": Target(
        module="triangle_raster.cpu_surface",
        functions=("_plane_gradients", "_back_to_vertex", "_pixel_gradient", "surface_gradients", "blend_gradients"),
        test="triangle_raster/backward_test.py",
        error=_triangles,
        no_terms={
            "(i, j, k)": "indices",
            "(dx, dy, dz)": "the ray, whose length and sign the plane across it cancels",
            "axis": "a code",
            "shear": "what the forward pass has as well",
            "(a, b, c)": "corners",
            "(pa, pb, pc)": "corners in the plane across the ray",
            "(ku, kv, kw)": "shares",
            "value": "a coordinate",
            "along_axis": "a component of the ray",
            "precise": "the pose",
            "(pixels, parts)": "sizes",
            "parts": "a size",
            "face": "an index",
            "(vertex, share)": "an index, and a share of the forward pass",
        },
        interpreted=True,
    ),
    "edge_blend/cpu": Target(
        module="edge_blend.cpu",
        functions=("_piece_back", "gradients", "_note_gradients"),
        test="edge_blend/conformance_test.py",
        error=_outlines,
        indices=frozenset({"low", "high", "s", "index", "_BATCH"}),
        no_terms={
            "steep": "a mask",
            "(precise, size, mask_only)": "inputs",
            "(of_values[:], of_points[:])": "the cotangent, flipped where it is read; and zero",
            "total": "a size",
            "high": "a size",
            "offsets": "places",
            "pixels": "empty notes",
            "areas": "empty notes",
            "(own, inner, outer)": "places",
            "edge": "vertices",
            "own": "a place",
            "(pixels[note, 0], pixels[note, 1], pixels[note, 2])": "places",
        },
        interpreted=True,
    ),
    "edge_blend/cpu_pieces": Target(
        module="edge_blend.cpu_pieces",
        functions=("area_slopes", "split_back", "column_back"),
        test="edge_blend/conformance_test.py",
        error=_outlines,
        no_terms={
            "((ax, ay), (bx, by), middle)": "the piece",
            "(ax, bx)": "the piece",
            "middle": "a rounding off the centre",
        },
        beneath=("edge_blend.cpu",),
        interpreted=True,
    ),
    "edge_blend/cpu_edges": Target(
        module="edge_blend.cpu_edges",
        functions=("segment_back", "_mixed"),
        test="edge_blend/cpu_edges_test.py",
        error=_lenses,
        no_terms={
            "(model, bent)": "codes",
            "near": "an input",
        },
        interpreted=True,
    ),
    "edge_blend/cpu_lens": Target(
        module="edge_blend.cpu_lens",
        functions=("pull", "_pull_brown", "_pull_fisheye", "_radial", "_angle_and_slope"),
        test="edge_blend/cpu_edges_test.py",
        error=_lenses,
        no_terms={
            "(k1, k2, k3)": "coefficients",
            "(k4, k5, k6)": "coefficients",
            "(k1, k2, k3, k4)": "coefficients",
            "(p1, p2, s)": "coefficients",
            "(x, y)": "the point",
            "(x, y, z)": "the point",
            "z": "the point",
            "length": "a length",
            "angle": "the point's",
        },
        beneath=("edge_blend.cpu_edges",),
        interpreted=True,
    ),
    "hash_encode/cpu": Target(
        module="hash_encode.cpu",
        functions=("_store_directed", "_scatter_part", "_contract_range", "_add_slope", "_add_curvature", "_add3"),
        test="hash_encode/conformance_test.py",
        error=_hash_encoding,
        no_terms=_REGISTERS,
        interpreted=True,
    ),
    "plane_sample/cpu": Target(
        module="plane_sample.cpu",
        functions=("_weights", "_add_scaled", "_inner", "_scatter_part", "_contract_block"),
        test="plane_sample/conformance_test.py",
        error=_plane_sampling,
        no_terms=_REGISTERS,
        interpreted=True,
    ),
}
