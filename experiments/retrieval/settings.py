"""Settings of the two-tower model's training, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field as option

from experiments.cadence import Cadence
from experiments.config_fields import RunConfig
from experiments.prior.settings import DataSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerSettings:
    """Sizes of the network, `generators.vision.two_tower`."""

    size: int = option(default=32, metadata={"help": "Pixels along a side of a view."})
    patch: int = option(default=8, metadata={"help": "Pixels along a side of a patch, a token."})
    width: int = option(default=64, metadata={"help": "Features of a token, a multiple of 64."})
    depth: int = option(default=3, metadata={"help": "Layers of each tower."})
    joint: int = option(default=64, metadata={"help": "Features of the vectors that are compared."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalConfig(RunConfig):
    """Every flag of `train_retrieval`."""

    steps: int = option(default=4000, metadata={"help": "Training steps of the whole run, resumed parts included."})
    batch: int = option(default=64, metadata={"help": "Objects of a step: each caption's rivals are the others'."})
    rate: float = option(default=1e-3, metadata={"help": "Learning rate; falls to nothing as half a cosine."})
    warmup: int = option(default=100, metadata={"help": "Steps in which it rises from nothing."})
    lit: float = option(default=0.5, metadata={"help": "Share of the objects that are seen in some light."})
    pool: int = option(default=100, metadata={"help": "Captions among which evaluations look for the right one."})
    tower: TowerSettings = option(default_factory=TowerSettings)
    data: DataSettings = option(default=DataSettings(reuse=24.0))
    cadence: Cadence = option(default=Cadence(log_every=20, evaluate_every=250, checkpoint_seconds=120.0))

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        super().__post_init__()
        for name, value, least in (
            ("batch", self.batch, 2),
            ("warmup", self.warmup, 0),
            ("pool", self.pool, 2),
            ("tower.size", self.tower.size, 1),
            ("tower.patch", self.tower.patch, 1),
            ("tower.width", self.tower.width, 1),
            ("tower.depth", self.tower.depth, 1),
            ("tower.joint", self.tower.joint, 1),
            ("data.chunk", self.data.chunk, 1),
            ("data.pool", self.data.pool, 1),
            ("data.first", self.data.first, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, value in (("lit", self.lit), ("data.canonical", self.data.canonical)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, got {value}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be between 0 and 1, got {self.rate}")
        if not self.data.reuse > 0:
            raise ValueError(f"data.reuse must be above 0, got {self.data.reuse}")
