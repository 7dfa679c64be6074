"""Runs modules of the repository as processes of their own, the way a user does."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(module: str, arguments: Sequence[str] = ()) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(extra or {})}


def run_module(module: str, *arguments: str, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, "env": environment(), **options}
    return subprocess.run(
        command(module, arguments), capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def run_code(code: str, *arguments: str, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, "env": environment(), **options}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
