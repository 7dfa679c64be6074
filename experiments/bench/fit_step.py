"""One training step of `fit_gaussians` all in: batch, render, loss, gradient, Adam, random walk."""

import itertools
import pathlib
import time

import jax
import numpy as np

from experiments.bench.timing import median_ms
from experiments.data.captures import load_capture
from experiments.splats.fit import Fit
from experiments.splats.settings import FitConfig


class _NeverStopped:
    requested = False


def measure(data: str) -> dict[str, tuple[float, str]]:
    """Median of 40 warm steps on a capture, with the Gaussians that it starts from, and the time of the first."""
    fit = Fit(load_capture(data), FitConfig(data=data, batch=jax.device_count()), _NeverStopped())
    state, aux = fit.init()
    program, steps = fit.program(pathlib.Path()), itertools.count()
    alive = int(state.alive.sum())

    def step():
        nonlocal state
        at = next(steps)
        where, fraction = jax.device_put((np.int32(at), np.float32(0.5)))
        state, metrics, _ = program.step(state, aux, program.batch(at), where, fraction)
        return metrics

    began = time.perf_counter()
    jax.block_until_ready(step())
    first = time.perf_counter() - began
    return {
        "fit_step/gaussians": (alive, ""),
        "fit_step/first_step": (first, "s"),
        "fit_step/warm": (median_ms(step, repeats=40, warmup=5), "ms"),
    }
