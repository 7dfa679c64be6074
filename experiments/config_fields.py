"""Settings that every experiment shares: a config inherits `RunConfig`, and so has the flags `--seed` and so on.

Only the standard library is imported here, so that `--help` needs no jax.
"""

import dataclasses
import math
from dataclasses import field
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Devices, processes and caches: the flags `--runtime.NAME`."""

    coordinator: str | None = field(
        default=None,
        metadata={
            "help": "HOST:PORT of process 0 in a run of several processes, the same for all; nothing else is bound. "
            '"auto" asks jax to find out (Cloud TPU pods). Under srun, and under mpirun on one host, it is not needed.'
        },
    )
    num_processes: int | None = field(default=None, metadata={"help": "Number of processes; srun and mpirun tell."})
    process_id: int | None = field(default=None, metadata={"help": "Rank of this process; srun and mpirun tell."})
    platform: Literal["cpu", "cuda", "tpu"] | None = field(
        default=None, metadata={"help": "Device to run on; by default JAX_PLATFORMS, else the best there is."}
    )
    num_cpu_devices: int | None = field(
        default=None, metadata={"help": "Split the CPU into this many virtual devices (to try sharding)."}
    )
    compilation_cache: str | None = field(
        default=None,
        metadata={
            "help": 'Folder for compiled programs, or "off"; by default JAX_COMPILATION_CACHE_DIR, else '
            "$XDG_CACHE_HOME/galatea3d."
        },
    )
    deterministic: bool = field(
        default=False, metadata={"help": "Bit-equal results on GPUs too, at a loss of speed (CPU and TPU always are)."}
    )
    watchdog_seconds: float = field(
        default=60.0,
        metadata={
            "help": "In a run of several processes, a process without a step for this long (and for 10 usual steps) "
            "prints its stacks and exits with 75; 0 switches that off."
        },
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range, or contradicts another.
        """
        if self.num_processes is not None and self.num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {self.num_processes}")
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or math.inf):
            raise ValueError(f"process_id must be 0 .. num_processes - 1, got {self.process_id}")
        if self.num_cpu_devices is not None and not 1 <= self.num_cpu_devices <= 1024:
            raise ValueError(f"num_cpu_devices must be 1 .. 1024, got {self.num_cpu_devices}")
        if not self.watchdog_seconds >= 0:
            raise ValueError(f"watchdog_seconds must be 0 or more, got {self.watchdog_seconds}")
        if self.coordinator not in (None, "auto"):
            host, _, port = self.coordinator.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f'coordinator must be HOST:PORT or "auto", got {self.coordinator!r}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every experiment is told: where to write, the seed, how long, whether to go on with an earlier run."""

    workdir: str | None = field(
        default=None, metadata={"help": "Folder for all results; by default runs/NAME/<date-time>."}
    )
    seed: int = field(default=0, metadata={"help": "Every random number follows from it."})
    steps: int = field(default=1000, metadata={"help": "Training steps of the whole run, resumed parts included."})
    max_seconds: float | None = field(
        default=None, metadata={"help": "Finish early, with all results, after this many seconds of the whole run."}
    )
    resume: bool = field(
        default=False, metadata={"help": "Continue the run in --workdir from its newest good checkpoint."}
    )
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be 0 .. {2**32 - 1}, got {self.seed}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, got {self.max_seconds}")
