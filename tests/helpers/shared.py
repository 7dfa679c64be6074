"""The folder of real captures and reference numbers that may lie next to the checkout."""

import pathlib

import pytest

SHARED = pathlib.Path(__file__).parents[2].parent / "shared"


def shared_path(*parts: str) -> pathlib.Path:
    """Path below `shared/`; the test is skipped, saying why, where it is not there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    return path
