"""Measure the operations that matter on this machine.

    python -m experiments.bench --only=composite
    python -m experiments.bench --only=scale --scenes=100k,300k,1m,3m
    python -m experiments.bench --only=memory
    python -m experiments.bench --only=meshes
    python -m experiments.bench --only=splats --compare
    python -m experiments.bench --only=fit_step --data=path/to/capture

Run it on a quiet machine; ratios are taken pair by pair in one process. Each group of results goes to a file of its own
in `--output`, named by the kind of device. With `--compare` nothing is written: the numbers are held against those
files, and the exit code is 1 if one has become 1.5 times slower or 1.2 times larger.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Literal

from experiments import flags

_RESULTS = "experiments/bench/results"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure and where to write it."""

    only: Literal["all", "composite", "splats", "modes", "scale", "memory", "meshes", "fields", "fit_step"] = field(
        default="all",
        metadata={
            "help": "What to measure: compositing; the parts of rendering 1080p; surfels and forward mode; growth to "
            "millions of Gaussians, each in its own process; stated peak memory; mesh rasterization; encodings of "
            "fields; a training step."
        },
    )
    data: str = field(default="demo", metadata={"help": "Capture that the training step is measured on."})
    scenes: tuple[Literal["100k", "300k", "500k", "1m", "3m", "10m"], ...] = field(
        default=("100k", "300k", "1m", "3m"), metadata={"help": "Numbers of Gaussians of --only=scale, rising."}
    )
    compare: bool = field(
        default=False, metadata={"help": "Hold the numbers against those in the output folder; write nothing."}
    )
    output: str = field(default=_RESULTS, metadata={"help": "Folder for the JSON files; empty writes none."})


def main(config: Config) -> int:
    """Run the measurements, print them, and write them with the machine and the command; 1 if one has regressed."""
    import pathlib

    from experiments import runtime
    from experiments.bench import compare, measurement

    runtime.setup()
    good = True
    for name, measure in _groups(config).items():
        made = measurement.document(measure())
        path = pathlib.Path(config.output or _RESULTS) / f"{name}_{measurement.device_kind(made)}.json"
        if config.compare:
            good &= compare.report(made, path)
        elif config.output:
            measurement.write(path, made)
    return 0 if good else 1


def _groups(config: Config) -> dict[str, Callable[[], dict[str, tuple[float, str]]]]:
    from experiments.bench import composite, fields, fit_step, memory, meshes, modes, scale, splats

    groups: dict[str, Callable[[], dict[str, tuple[float, str]]]] = {
        "composite": composite.measure,
        "splats": splats.measure,
        "modes": modes.measure,
        "scale": lambda: scale.measure(config.scenes),
        "memory": memory.measure,
        "meshes": meshes.measure,
        "fields": fields.measure,
        "fit_step": lambda: fit_step.measure(config.data),
    }
    return groups if config.only == "all" else {config.only: groups[config.only]}


if __name__ == "__main__":
    flags.run(main, Config())
