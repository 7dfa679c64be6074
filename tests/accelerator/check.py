"""What to run first whenever an accelerator is at hand: are its kernels right, and how fast are they.

    python -m tests.accelerator.check                      # both, on the device's own backend
    python -m tests.accelerator.check --only=right --backend=xla

`right`: the committed files of gsplat's numbers, images within 2e-5 and gradients within 2e-4 of the largest entry; and
a large random scene at 1080p against another backend. Freed device memory is filled with NaN before each, so that an
output that a kernel leaves unwritten shows. `fast`: projection, colours, binning, compositing and the whole, forward
and with gradients, by number of Gaussians. Results go to `OUTPUT/DEVICE/kernels_{right,fast}.json`; the exit code is 1
if something is wrong. Needs no pytest.
"""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments import flags

_Scene = Literal["100k", "300k", "500k", "1m", "3m", "10m"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to check, and on what."""

    only: Literal["all", "right", "fast"] = field(default="all", metadata={"help": "Which check."})
    backend: Literal["xla", "cpu", "pallas_gpu", "pallas_tpu"] | None = field(
        default=None, metadata={"help": "Backend to check; by default the device's own."}
    )
    against: Literal["xla", "cpu"] = field(default="xla", metadata={"help": "Backend that it must equal."})
    scene: _Scene = field(default="100k", metadata={"help": "Random scene that it must equal it on."})
    scenes: tuple[_Scene, ...] = field(default=("100k", "500k", "1m", "3m"), metadata={"help": "Scenes to time."})
    repeats: int = field(default=50, metadata={"help": "Timings a median is taken of."})
    poison_mib: int = field(default=4096, metadata={"help": "Device memory to fill with NaN and free; 0 for none."})
    output: str = field(default="experiments/bench/results", metadata={"help": "Folder for the results; empty: none."})


def main(config: Config) -> int:
    """Run the checks, print and write what they find; 1 if a kernel is wrong."""
    import pathlib

    from experiments import runtime
    from experiments.bench import measurement, scenes, splats
    from renderers.kernels.dispatch import choose
    from tests.accelerator import kernels

    runtime.setup()
    backend = choose(config.backend)
    good = True
    for name in ("right", "fast") if config.only == "all" else (config.only,):
        if name == "right":
            rows = kernels.right(backend, config.against, scenes.SCENES[config.scene], config.poison_mib)
            good = all(value <= kernels.LIMITS[unit] for value, unit in rows.values())
        else:
            rows = splats.measure(config.scenes, backend, repeats=config.repeats)
        made = measurement.document(rows, "tests.accelerator.check")
        if config.output:
            folder = pathlib.Path(config.output) / measurement.device_kind(made)
            measurement.write(folder / f"kernels_{name}.json", made)
    print(f"{backend}: {'right' if good else 'WRONG'}" if config.only != "fast" else f"{backend}: timed")
    return 0 if good else 1


if __name__ == "__main__":
    flags.run(main, Config())
