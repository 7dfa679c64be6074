"""Sixteen float32 lanes as one value in Numba code: explicit vector registers instead of hoping for auto-vectorisation.

A `lanes` value is an LLVM `<16 x float>`, which every CPU target legalises to its own registers (one AVX-512, two AVX,
four NEON). Arithmetic with scalars broadcasts. LLVM's loop vectoriser, given the same kernels as scalar loops, guarded
each loop by alias checks and ran 2-4x slower.
"""

import math
import operator

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, overload, register_model

from renderers.kernels.jit_numba import njit

WIDTH = 16

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_INT_VECTOR = ir.VectorType(_INT, WIDTH)
_FAST = ("contract", "nsz")  # products and sums may fuse; infinities and NaNs keep their meaning


class Lanes(types.Type):
    """Numba type of sixteen float32 values."""

    def __init__(self):
        super().__init__(name="float32x16")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, value)] * WIDTH)


def _splat(builder, scalar):
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INT_VECTOR, [0] * WIDTH))


def _call(builder, name, result, *arguments, fast=()):
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)
    return builder.call(function, arguments, fastmath=fast)


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """Sixteen consecutive values of a C-contiguous float32 array, from a flat index."""

    def generate(context, builder, signature, arguments):
        loaded = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        loaded.align = 4
        return loaded

    return lanes(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, value):
    """Write sixteen consecutive values of a C-contiguous float32 array, from a flat index."""

    def generate(context, builder, signature, arguments):
        written = builder.store(arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]))
        written.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def splat(typing_context, value):
    """One value on all lanes."""

    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return lanes(types.float32), generate


@intrinsic
def ramp(typing_context):
    """0, 1, ... 15."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(i)) for i in range(WIDTH)])

    return lanes(), generate


@intrinsic
def where_greater(typing_context, a, b, chosen, otherwise):
    """Lane by lane, `chosen` if a > b, else `otherwise`; a NaN compares false."""

    def generate(context, builder, signature, arguments):
        a, b, chosen, otherwise = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), chosen, otherwise)

    return lanes(lanes, lanes, lanes, lanes), generate


@intrinsic
def where_at_least(typing_context, a, b, chosen, otherwise):
    """Lane by lane, `chosen` if a >= b, else `otherwise`; a NaN compares false."""

    def generate(context, builder, signature, arguments):
        a, b, chosen, otherwise = arguments
        return builder.select(builder.fcmp_ordered(">=", a, b), chosen, otherwise)

    return lanes(lanes, lanes, lanes, lanes), generate


@intrinsic
def absolute(typing_context, a):
    """Magnitudes."""

    def generate(context, builder, signature, arguments):
        return _call(builder, "llvm.fabs.v16f32", _VECTOR, *arguments)

    return lanes(lanes), generate


@intrinsic
def total(typing_context, a):
    """Sum of the lanes, in an order fixed by the target."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(_FLOAT, 0.0)
        return _call(builder, "llvm.vector.reduce.fadd.v16f32", _FLOAT, zero, *arguments, fast=("reassoc",))

    return types.float32(lanes), generate


@intrinsic
def any_positive(typing_context, a):
    """Whether some lane is above zero."""

    def generate(context, builder, signature, arguments):
        positive = builder.fcmp_ordered(">", arguments[0], _constant(0.0))
        return _call(builder, "llvm.vector.reduce.or.v16i1", ir.IntType(1), positive)

    return types.boolean(lanes), generate


@intrinsic
def exp_negative(typing_context, a):
    """exp(-a) for a in [0, 87], relative error at most 2.3e-7 + 8e-8 a (4.3e-7 where alpha can reach 1/255).

    exp(-a) = 2^(w + f), w whole, |f| <= 1/2: 2^w by its exponent bits, 2^f by its Taylor series to the sixth power.
    """

    def generate(context, builder, signature, arguments):
        x = builder.fmul(arguments[0], _constant(-1 / math.log(2)), flags=_FAST)
        whole = _call(builder, "llvm.floor.v16f32", _VECTOR, builder.fadd(x, _constant(0.5)))
        fraction = builder.fsub(x, whole, flags=_FAST)
        series = _constant(math.log(2) ** 6 / math.factorial(6))
        for k in reversed(range(6)):
            term = _constant(math.log(2) ** k / math.factorial(k))
            series = _call(builder, "llvm.fma.v16f32", _VECTOR, series, fraction, term)
        bias, shift = (ir.Constant(_INT_VECTOR, [v] * WIDTH) for v in (127, 23))
        bits = builder.shl(builder.add(builder.fptosi(whole, _INT_VECTOR), bias), shift)
        return builder.fmul(series, builder.bitcast(bits, _VECTOR), flags=_FAST)

    return lanes(lanes), generate


def _arithmetic(instruction):
    @intrinsic
    def apply(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=_FAST)

        return lanes(lanes, lanes), generate

    return apply


def _overload_operator(symbol, apply):
    @overload(symbol, inline="always")
    def implement(a, b):
        a_lanes, b_lanes = isinstance(a, Lanes), isinstance(b, Lanes)
        if a_lanes and b_lanes:
            return lambda a, b: apply(a, b)
        if a_lanes and isinstance(b, types.Float):
            return lambda a, b: apply(a, splat(b))
        if b_lanes and isinstance(a, types.Float):
            return lambda a, b: apply(splat(a), b)
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload_operator(_symbol, _arithmetic(_instruction))


@njit(inline="always")
def clamp(a, low, high):
    """Lanes limited to low .. high (lanes)."""
    raised = where_greater(a, low, a, low)
    return where_greater(high, raised, raised, high)
