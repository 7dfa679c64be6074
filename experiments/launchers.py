"""Whether a program is one of several, and where they meet: from the flags, srun, mpirun or a TPU pod."""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from experiments import config_fields, errors

_TPU_PORT = 8476
# Above the ports that Linux hands out by default (32768 - 60999); the job's number keeps jobs apart.
_FIRST_PORT, _NUM_PORTS = 61000, 4096


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """Where processes meet: `address` (host:port of process 0; None lets jax find it), `count`, `index`."""

    address: str | None
    count: int | None
    index: int | None


def rendezvous(config: config_fields.RuntimeConfig, environ: Mapping[str, str]) -> Rendezvous | None:
    """Decides from flags and launcher whether, and where, this process meets others.

    Flags come first; what they leave open is taken from srun (`SLURM_STEP_NUM_TASKS`, `SLURM_PROCID`), mpirun
    (`OMPI_COMM_WORLD_SIZE`, `OMPI_COMM_WORLD_RANK`) or a TPU pod (`TPU_WORKER_HOSTNAMES`, `TPU_WORKER_ID`).

    Returns:
        The meeting point, or None for a single process.

    Raises:
        InputError: the flags say that there are several processes but not which one this is.
    """
    if config.coordinator == "auto":
        return Rendezvous(address=None, count=config.num_processes, index=config.process_id)
    launched = _from_launcher(environ)
    address = config.coordinator or (launched.address if launched else None)
    count = config.num_processes if config.num_processes is not None else (launched.count if launched else None)
    index = config.process_id if config.process_id is not None else (launched.index if launched else None)
    asked = (config.coordinator, config.num_processes, config.process_id) != (None, None, None)
    if not asked and launched is None:
        return None
    if address is None or count is None or index is None:
        if count == 1 and index in (None, 0):
            return None
        raise errors.InputError(
            "several processes need --runtime.coordinator=HOST:PORT, --runtime.num_processes and --runtime.process_id, "
            f"got {address}, {count}, {index}"
        )
    if not 0 <= index < count:
        raise errors.InputError(f"--runtime.process_id must be 0 .. {count - 1}, got {index}")
    return None if count == 1 else Rendezvous(address=address, count=count, index=index)


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: "node[001-004,7],x1" -> "node001"."""
    head, bracket, rest = nodelist.partition("[")
    if not bracket or "," in head:
        return nodelist.split(",")[0].strip()
    inside, _, tail = rest.partition("]")
    first = inside.split(",")[0].split("-")[0]
    return (head + first + tail.split(",")[0]).strip()


def _from_launcher(environ: Mapping[str, str]) -> Rendezvous | None:
    def number(name: str) -> int | None:
        text = environ.get(name, "")
        return int(text) if text.isdigit() else None

    if (number("SLURM_STEP_NUM_TASKS") or 1) > 1 and number("SLURM_PROCID") is not None:
        host = first_host(environ.get("SLURM_STEP_NODELIST", ""))
        port = _FIRST_PORT + (number("SLURM_JOB_ID") or 0) % _NUM_PORTS
        address = f"{host}:{port}" if host else None
        return Rendezvous(address=address, count=number("SLURM_STEP_NUM_TASKS"), index=number("SLURM_PROCID"))
    size = number("OMPI_COMM_WORLD_SIZE")
    if (size or 1) > 1:
        # All on this host: then they can meet on the loopback interface, at a port that the job's name decides.
        port = _FIRST_PORT + zlib.crc32(environ.get("PMIX_NAMESPACE", str(os.getppid())).encode()) % _NUM_PORTS
        address = f"127.0.0.1:{port}" if number("OMPI_COMM_WORLD_LOCAL_SIZE") == size else None
        return Rendezvous(address=address, count=size, index=number("OMPI_COMM_WORLD_RANK"))
    hosts = [host for host in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host.strip()]
    if len(hosts) > 1:
        return Rendezvous(address=f"{hosts[0].strip()}:{_TPU_PORT}", count=len(hosts), index=number("TPU_WORKER_ID"))
    return None
