"""A measurement as it is printed and kept: numbers with units, the machine, the versions, the command."""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from experiments import errors, runtime, workdir


def document(rows: Mapping[str, tuple[float, str]], program: str = "experiments.bench") -> dict[str, Any]:
    """Print `name value unit` lines and return what the JSON file holds."""
    for name, (value, unit) in rows.items():
        print(f"{name} {value:.6g} {unit}".rstrip(), flush=True)
    return {
        "command": f"python -m {program} " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": runtime.platform_report(),
        "versions": workdir.package_versions(("jax", "jaxlib", "numba", "numpy")),
        "results": {name: {"value": value, "unit": unit} for name, (value, unit) in rows.items()},
    }


def write(path: pathlib.Path, made: Mapping[str, Any]) -> None:
    """Write a document, and its folder if there is none.

    Raises:
      InputError: the place cannot be written.
      NoRoomError: the disk is full; an older file is intact.
    """
    with errors.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_json_atomic(path, made)


def device_kind(made: Mapping[str, Any]) -> str:
    """The kind of device as a part of a file's name."""
    return str(made["machine"]["device_kind"]).lower().replace(" ", "_")
