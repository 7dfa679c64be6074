import dataclasses
import os
import pathlib
import time

import pytest

from tests.reliability import drivers

TOY = ["-m", "tests.reliability.toy"]


@dataclasses.dataclass(frozen=True)
class Unbroken:
    workdir: pathlib.Path
    digest: tuple[int, str]
    numbers: list


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory, compilation_cache):
    """The toy experiment that nothing happens to."""
    folder = tmp_path_factory.mktemp("unbroken")
    ended = drivers.run([*TOY, f"--workdir={folder / 'run'}"], folder / "log")
    assert ended.code == os.EX_OK, ended.err
    run = folder / "run"
    return Unbroken(run, drivers.final_arrays_digest(run), drivers.logged_numbers(run))


@pytest.fixture
def log(tmp_path):
    return tmp_path / f"log-{time.time_ns()}"
