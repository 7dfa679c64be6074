"""Named host arrays in a folder of orbax's: the only module that knows orbax, whose v1 interface is experimental."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments import host_arrays


def read_arrays(folder: pathlib.Path, leaves: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Reads the arrays of one step on the host, by dotted name; check the step with `manifest.verify` first.

    Every process must call this: orbax numbers its operations, and numbers that differ make the next save hang.

    Args:
        folder: the folder of the step.
        leaves: the table of arrays of its manifest.
    """
    import orbax.checkpoint.experimental.v1 as ocp

    templates = {
        name: np.broadcast_to(np.zeros((), host_arrays.dtype_named(dtype)), shape)
        for name, (dtype, shape) in leaves.items()
    }
    stored = {name: template for name, template in templates.items() if template.size}
    with _context():
        return templates | ocp.load(str(folder), stored)


def _context() -> Any:
    # Deferred: the first training step must not wait for this import.
    import orbax.checkpoint.experimental.v1 as ocp

    context = ocp.Context()
    # Trained floats do not compress (8 % measured), and compressing takes 4 times as long as writing.
    context.array.saving.use_compression = False
    # What the others wait for process 0 if its disk is full.
    context.asynchronous.timeout_secs = 120
    return context


def start_writing(folder: pathlib.Path, leaves: Mapping[str, np.ndarray]) -> Any:
    """Begins to write arrays; `result()` of what is returned waits for the end. Every process must call this.

    With several processes it uses collectives, so it belongs on the main thread, with no other computation under way;
    process 0 alone writes.

    Raises:
        ValueError, OSError: the folder cannot be written; a full disk is a ValueError that says RESOURCE_EXHAUSTED.
    """
    import orbax.checkpoint.experimental.v1 as ocp

    with _context(), quiet():
        # Orbax refuses arrays without entries; the manifest knows their types and shapes.
        return ocp.save_async(str(folder), {name: leaf for name, leaf in leaves.items() if leaf.size})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps orbax from logging the traceback of an error that it also raises, and that is reported in one line."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
