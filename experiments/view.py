"""Splats, meshes or a run's results in the browser, served to this machine only.

    python -m experiments.view --input=runs/fit_gaussians/2026-11-22-10-00-00
    python -m experiments.view --input=asset.glb --port=8090

Takes .glb, .gltf, .obj and .ply meshes, every splat format, and the folder of a run: all that it left behind is shown,
with a checkbox each. Files are read and checked by our own readers before anything reaches the browser. On another
machine, forward the port: `ssh -L 8080:localhost:8080 HOST`.
"""

import dataclasses
import importlib.util
import pathlib
import time
from dataclasses import field

from experiments import flags
from experiments.config_fields import RuntimeConfig

_ADDRESS = "127.0.0.1"
RESULTS = ("asset.glb", "splats.ply", "mesh.glb", "motion.glb")
"""What runs leave behind that can be looked at."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Settings of the viewer."""

    input: str = field(default="", metadata={"help": "A mesh, a splat file, or the folder of a run."})
    port: int = field(default=8080, metadata={"help": "Port on 127.0.0.1; a busy one is refused."})
    up: str = field(default="+y", metadata={"help": "The direction that points up: +x, -x, +y, -y, +z or -z."})
    max_seconds: float | None = field(default=None, metadata={"help": "Stop after this long; None: until Ctrl-C."})
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must be 1 .. 65535, got {self.port}")
        if self.up not in ("+x", "-x", "+y", "-y", "+z", "-z"):
            raise ValueError(f"up must be +x, -x, +y, -y, +z or -z, got {self.up!r}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, got {self.max_seconds}")


Config = ViewConfig


def main(config: ViewConfig) -> int:
    """Serves what --input names until interrupted."""
    from experiments import preemption, runtime
    from experiments.errors import EXIT_OK, InputError

    if importlib.util.find_spec("viser") is None:
        raise InputError("the viewer needs viser: pip install 'galatea3d[viewer]'")
    shown = find_results(config.input)
    runtime.setup(config.runtime)
    from experiments import viewer

    loaded = [viewer.load(path) for path in shown]
    with preemption.StopSignal() as stop, viewer.Viewer(_ADDRESS, config.port, config.up) as server:
        for item in loaded:
            server.show(item)
            print(f"{item.name}: {item.summary}", flush=True)
        print(f"http://localhost:{config.port}  (Ctrl-C ends)", flush=True)
        end = time.monotonic() + config.max_seconds if config.max_seconds is not None else float("inf")
        while time.monotonic() < end and not stop.requested:
            time.sleep(0.1)
    return EXIT_OK


def find_results(where: str) -> list[pathlib.Path]:
    """The files to show: the one that is named, or what lies in the folder of a run.

    Raises:
        InputError: nothing there, or nothing that can be shown.
    """
    from experiments.errors import InputError

    if not where:
        raise InputError("expected --input=FILE or --input=FOLDER: a mesh, splats, or the folder of a run")
    path = pathlib.Path(where)
    if not path.exists():
        raise InputError(f"{where}: no such file or folder")
    if path.is_file() or (path / "meta.json").is_file():  # a folder with meta.json is an unpacked SOG scene
        return [path]
    found = [path / name for name in RESULTS if (path / name).is_file()]
    if not found:
        raise InputError(f"{where}: expected one of {', '.join(RESULTS)} in this folder; name a file instead")
    return found


if __name__ == "__main__":
    flags.run(main, Config())
