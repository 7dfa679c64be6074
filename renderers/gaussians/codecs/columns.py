"""The Gaussians record as plain NumPy columns: what all formats pack and unpack, and the checks they owe."""

import os
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from renderers.files import FormatError, require_finite
from renderers.gaussians.gaussians import Gaussians

COEFFICIENTS = {1: 0, 4: 1, 9: 2, 16: 3, 25: 4}
"""Degree of the spherical harmonics by number of coefficients."""

# Bytes hold opacities after the sigmoid; the outermost two are read half a step inside (0, 1): their logits are finite.
_HALF_STEP = 0.5 / 255


class Columns(NamedTuple):
    """float32 columns of a splat scene, same meaning as in `Gaussians`."""

    means: Float[np.ndarray, "n 3"]
    quaternions: Float[np.ndarray, "n 4"]
    log_scales: Float[np.ndarray, "n 3"]
    opacity_logits: Float[np.ndarray, " n"]
    sh: Float[np.ndarray, "n k 3"]


def to_record(path: str | os.PathLike[str], columns: Columns) -> Gaussians:
    """Checks that every number read from `path` is finite and moves the columns to the device as float32.

    Raises:
        FormatError: naming the first row that is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        columns = Columns(*(np.ascontiguousarray(column, np.float32) for column in columns))
    for name, column in zip(Columns._fields, columns, strict=True):
        if len(column):
            require_finite(os.fspath(path), name.replace("_", " "), column)
    return Gaussians(**{name: jnp.asarray(column) for name, column in columns._asdict().items()})


def from_record(path: str | os.PathLike[str], gaussians: Gaussians) -> Columns:
    """Takes a record to the host as float32 columns fit for writing to `path`.

    Raises:
        FormatError: if a value is not finite, or the columns disagree in length, or the number of coefficients is not
            that of degree 0 to 4; nothing is written then.
    """
    columns = Columns(*(np.asarray(getattr(gaussians, name), np.float32) for name in Columns._fields))
    n = len(columns.means)
    k = columns.sh.shape[1] if columns.sh.ndim == 3 else -1
    shapes = {"means": (n, 3), "quaternions": (n, 4), "log_scales": (n, 3), "opacity_logits": (n,), "sh": (n, k, 3)}
    for name, shape in shapes.items():
        if getattr(columns, name).shape != shape or k not in COEFFICIENTS:
            raise FormatError(
                f"cannot write {os.fspath(path)}: expected {name} of shape {shape} and 1, 4, 9, 16 or 25 "
                f"coefficients, got {getattr(columns, name).shape}"
            )
        if n:
            require_finite(f"cannot write {os.fspath(path)}", name.replace("_", " "), getattr(columns, name))
    return columns


def unit_quaternions(quaternions: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Quaternions of length one; zero ones become the identity, as rotations by nothing."""
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    identity = np.array([1.0, 0.0, 0.0, 0.0], quaternions.dtype)
    return np.where(length > 0, quaternions / np.where(length > 0, length, 1), identity)


def logit_from_opacity(opacity: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Inverse sigmoid of opacities that were stored in a byte."""
    inside = np.clip(opacity, _HALF_STEP, 1 - _HALF_STEP)
    return np.log(inside / (1 - inside))


def opacity_from_logit(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Sigmoid, without overflow for logits of any size."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))
