"""Measure the operations that matter on this machine.

    python -m experiments.bench --only=composite
    python -m experiments.bench --only=fit_step --data=path/to/capture

Run it on a quiet machine; ratios are taken pair by pair in one process. Results go to `--output`, one JSON a device.
"""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments import flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure and where to write it."""

    only: Literal["all", "composite", "fit_step"] = field(default="all", metadata={"help": "The operation to measure."})
    data: str = field(default="demo", metadata={"help": "Capture that the training step is measured on."})
    output: str = field(
        default="experiments/bench/results", metadata={"help": "Folder for the JSON files; empty writes none."}
    )


def main(config: Config) -> None:
    """Run the measurements, print them, and write them with the machine and the command."""
    import pathlib
    import sys
    import time

    from experiments import runtime, workdir
    from experiments.bench import composite, fit_step

    runtime.setup()
    rows = {}
    if config.only in ("all", "composite"):
        rows |= composite.measure()
    if config.only in ("all", "fit_step"):
        rows |= fit_step.measure(config.data)
    for name, (value, unit) in rows.items():
        print(f"{name} {value:.6g} {unit}".rstrip())
    if config.output:
        report = runtime.platform_report()
        result = {
            "command": "python -m experiments.bench " + " ".join(sys.argv[1:]),
            "date": time.strftime("%Y-%m-%d"),
            "machine": report,
            "versions": workdir.package_versions(("jax", "jaxlib", "numba", "numpy")),
            "results": {name: {"value": value, "unit": unit} for name, (value, unit) in rows.items()},
        }
        kind = str(report["device_kind"]).lower().replace(" ", "_")
        workdir.write_json_atomic(pathlib.Path(config.output) / f"{config.only}_{kind}.json", result)


if __name__ == "__main__":
    flags.run(main, Config())
