"""Unit quaternions by their three smaller components: the largest is positive and follows from the length.

The order of the four components is the caller's (wxyz or xyzw).
"""

import numpy as np
from jaxtyping import Float, Int

from renderers.gaussians.codecs.columns import unit_quaternions

# Row i: the components that remain when component i is the largest.
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def split(quaternions: Float[np.ndarray, "n 4"]) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
    """Index of the largest component, and the others in order, of the same rotations with that component positive.

    The others lie in +-1/sqrt(2).
    """
    largest = np.argmax(np.abs(quaternions), axis=1)
    positive = quaternions * np.where(np.take_along_axis(quaternions, largest[:, None], axis=1) < 0, -1, 1)
    return largest, np.take_along_axis(positive, _OTHERS[largest], axis=1)


def join(largest: Int[np.ndarray, " n"], others: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    """Inverse of `split`; others that are too long for a unit quaternion are shortened."""
    quaternions = np.zeros((len(largest), 4))
    np.put_along_axis(quaternions, _OTHERS[largest], others, axis=1)
    rest = np.sqrt(np.maximum(0, 1 - np.sum(others**2, axis=1)))
    np.put_along_axis(quaternions, largest[:, None], rest[:, None], axis=1)
    return unit_quaternions(quaternions)
