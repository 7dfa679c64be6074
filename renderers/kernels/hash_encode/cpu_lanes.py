"""Vector registers for the encoding on the host: cells, rows and weights of sixteen points at once.

Cells are whole numbers in float32 lanes, exact below 2^24 vertices an axis; rows are 32-bit integers in memory.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from renderers.kernels.hash_encode.levels import PRIMES
from renderers.kernels.lanes_numba import _INT, _INT_VECTOR, _VECTOR, WIDTH, _call, _pointer, lanes


@intrinsic
def floor(typing_context, a):
    """Largest whole numbers not above."""

    def generate(context, builder, signature, arguments):
        return _call(builder, "llvm.floor.v16f32", _VECTOR, *arguments)

    return lanes(lanes), generate


@intrinsic
def store_dense(typing_context, rows, at, x, y, z, nx, ny, offset, width):
    """Write where the eight vertices of dense cells begin in the flat table, sixteen points each, x fastest.

    `rows` holds eight stretches of equal length, in each of which `at` is the first point's place; scalars are int32.
    """

    def generate(context, builder, signature, arguments):
        rows, at, x, y, z, nx, ny, offset, width = arguments
        x, y, z = (builder.fptosi(a, _INT_VECTOR) for a in (x, y, z))
        up = _splat(builder, nx)
        deep = builder.mul(up, _splat(builder, ny))
        first = builder.add(x, builder.add(builder.mul(up, y), builder.mul(deep, z)))
        for corner in range(8):
            row = first
            for bit, stride in ((1, _integers(1)), (2, up), (4, deep)):
                row = builder.add(row, stride) if corner & bit else row
            _store(context, builder, signature.args[0], rows, at, corner, row, offset, width)
        return context.get_dummy_value()

    return _signature(rows, 4), generate


@intrinsic
def store_hashed(typing_context, rows, at, x, y, z, mask, offset, width):
    """As `store_dense`, of hashed cells; `mask` is the number of rows less one."""

    def generate(context, builder, signature, arguments):
        rows, at, x, y, z, mask, offset, width = arguments
        axes = []
        for a, prime in zip((x, y, z), PRIMES, strict=True):
            prime = _integers(prime - (1 << 32) if prime >> 31 else prime)
            near = builder.mul(builder.fptosi(a, _INT_VECTOR), prime)
            axes.append((near, builder.add(near, prime)))
        mask = _splat(builder, mask)
        for corner in range(8):
            x, y, z = (axis[corner >> bit & 1] for bit, axis in enumerate(axes))
            row = builder.and_(builder.xor(x, builder.xor(y, z)), mask)
            _store(context, builder, signature.args[0], rows, at, corner, row, offset, width)
        return context.get_dummy_value()

    return _signature(rows, 3), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line of an entry of a flat array, to be read soon."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        options = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # to read, into all caches, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), address, *options)
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _signature(rows, scalars):
    return types.void(rows, types.intp, lanes, lanes, lanes, *[types.int32] * scalars)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INT_VECTOR, [value] * WIDTH)


def _splat(builder, scalar):
    undefined = ir.Constant(_INT_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, _integers(0))


def _store(context, builder, array_type, rows, at, corner, row, offset, width):
    begins = builder.mul(builder.add(row, _splat(builder, offset)), _splat(builder, width))
    stretch = builder.udiv(context.make_array(array_type)(context, builder, rows).nitems, ir.Constant(at.type, 8))
    index = builder.add(at, builder.mul(stretch, ir.Constant(at.type, corner)))
    pointer = builder.bitcast(_pointer(context, builder, array_type, rows, index), _INT_VECTOR.as_pointer())
    builder.store(begins, pointer).align = 4
