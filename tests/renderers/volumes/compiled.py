"""Functions of a module as compiled programs: op by op, tests would compile each of a hundred operations by itself."""

import inspect
import types
import typing

import jax


def compiled(module: types.ModuleType) -> types.SimpleNamespace:
    """The module's own public functions, jitted; arguments that are annotated as plain numbers or names are static."""
    functions = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    return types.SimpleNamespace(
        **{name: jax.jit(function, static_argnames=_static(function)) for name, function in functions.items()}
    )


def _static(function):
    annotations = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
    return [
        name
        for name, kind in annotations.items()
        if kind in (int, float, bool) or typing.get_origin(kind) in (typing.Literal, tuple)
    ]
