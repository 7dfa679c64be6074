"""Find the block sizes of the Pallas kernels that are fastest on this device.

    python -m experiments.bench.tune --op=composite --backend=pallas_gpu

Times every candidate on named shapes, forward and backward, and prints the rows to paste into
`renderers/kernels/composite/blocks.py`. On a CPU kernels are interpreted: `--shapes=tiny --limit=2` tries the program
itself, its times mean nothing.
"""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments import errors, flags

_SHAPES = ("tiny", "20k", "50k", "100k", "400k", "full_hd", "features16", "fog")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to tune, on what, and where to write it."""

    op: Literal["composite"] = field(default="composite", metadata={"help": "The operation whose kernels are tuned."})
    backend: Literal["pallas_gpu", "pallas_tpu"] = field(
        default="pallas_gpu", metadata={"help": "The kernels: Triton's or Mosaic's."}
    )
    shapes: tuple[Literal["tiny", "20k", "50k", "100k", "400k", "full_hd", "features16", "fog"], ...] = field(
        default=("100k", "full_hd", "features16"), metadata={"help": "Scenes to time, a row of the table for each."}
    )
    repeats: int = field(default=15, metadata={"help": "Runs of each candidate, of which the median counts."})
    limit: int = field(default=0, metadata={"help": "Most candidates of each pass; 0 tries all."})
    output: str = field(
        default="experiments/bench/results", metadata={"help": "Folder for the JSON file; empty writes none."}
    )

    def __post_init__(self):
        if not self.shapes:
            raise ValueError("--shapes: expected at least one of " + ", ".join(_SHAPES))
        if self.repeats < 1 or self.limit < 0:
            raise ValueError("--repeats: expected at least 1, --limit: at least 0")


def main(config: Config) -> None:
    """Time the candidates, print each and the table, and write both."""
    import pathlib

    import jax

    from experiments import runtime, workdir
    from experiments.bench import measurement, tuning
    from renderers.kernels.dispatch import Unsupported, choose

    runtime.setup()
    try:
        choose(config.backend)
    except Unsupported as refusal:
        raise errors.InputError(f"--backend={config.backend}: {refusal}") from refusal
    rows, timings = [], {}
    for name in config.shapes:
        row, times = tuning.tune(config.backend, name, config.repeats, config.limit or None)
        rows.append(row)
        timings |= times
    made = measurement.document(timings)
    made["table"] = tuning.literal(jax.devices()[0].device_kind, rows)
    print(made["table"])
    if config.output:
        path = pathlib.Path(config.output) / f"tune_{config.backend}_{measurement.device_kind(made)}.json"
        workdir.write_json_atomic(path, made)
        print(f"written {path}")


if __name__ == "__main__":
    flags.run(main, Config())
