"""A program as small as an experiment can be; the tests of `experiments.flags` run it as a process of its own."""

import dataclasses
import enum
import json
import os
import signal
import sys
from dataclasses import field
from typing import Literal

from experiments import config_fields, errors, flags


class Shape(enum.Enum):
    CUBE = "c"
    BALL = "b"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = field(default=1e-3, metadata={"help": "Learning rate."})
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata={"help": "Decay rates."})
    milestones: tuple[int, ...] = field(default=(10, 20), metadata={"help": "Steps at which the rate halves."})

    def __post_init__(self):
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(config_fields.RunConfig):
    outcome: Literal["ok", "code", "input", "room", "full", "defect", "signal", "modules"] = field(
        default="ok", metadata={"help": "How the program ends."}
    )
    prompt: str = field(default="a chair", metadata={"help": "Words."})
    shape: Shape = field(default=Shape.CUBE, metadata={"help": "A solid."})
    degree: Literal[0, 1, 2, 3] = field(default=3, metadata={"help": "Degree of the harmonics."})
    capacity: int | None = field(default=None, metadata={"help": "Upper bound."})
    names: tuple[str, ...] = field(default=(), metadata={"help": "View names."})
    antialias: bool = field(default=False, metadata={"help": "Whether to smooth."})
    exact: bool | None = field(default=None, metadata={"help": "Whether to be exact; by default it depends."})
    optimizer: Optimizer = field(default_factory=Optimizer)


def main(config: Config) -> int | None:
    if config.outcome == "code":
        return 7
    if config.outcome == "input":
        raise errors.InputError("the capture has no images;\n  look into its folder")
    if config.outcome == "room":
        raise errors.NoRoomError(28, "no room for the checkpoint")
    if config.outcome == "full":
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")
    if config.outcome == "defect":
        raise ZeroDivisionError("a defect")
    if config.outcome == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
    if config.outcome == "modules":
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    return None


if __name__ == "__main__":
    flags.run(main, Config())
