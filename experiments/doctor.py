"""Says what this machine can do: devices, versions, kernel backends, extras, caches; then renders and checks a scene.

Prints one line for every problem and exits with 1 if there is any, with 0 otherwise.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any

from experiments import config_fields, flags

CORE = (
    *("absl-py", "av", "fast-simplification", "flax", "jax", "jaxlib", "jaxtyping", "numpy", "optax"),
    *("orbax-checkpoint", "pillow", "rich", "safetensors", "scikit-image", "scipy", "tensorboardX", "trimesh"),
    *("xatlas", "zstandard"),
)
"""Distributions that every installation has."""

EXTRAS = {
    "cpu": ("numba", "rendering on CPUs 7-8 times faster than portable XLA"),
    "cuda": ("jax-cuda13-plugin", "NVIDIA GPUs"),
    "tpu": ("libtpu", "Google TPUs"),
    "viewer": ("viser", "looking at results in the browser"),
    "colmap": ("pycolmap", "finding camera poses of your own photographs"),
    "hub": ("huggingface_hub", "fetching published weights"),
    "parity": ("torch", "comparing with other people's code in tests"),
    "dev": ("pytest", "running the tests"),
}
"""Extra -> (the distribution that shows that it is installed, what it adds)."""

_MIN_FREE_GIB = 1.0
_CHECK_SECONDS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the doctor."""

    json: bool = field(default=False, metadata={"help": "Print the findings as JSON, for scripts and bug reports."})
    runtime: config_fields.RuntimeConfig = field(default_factory=config_fields.RuntimeConfig)


def main(config: Config) -> int:
    """Examines the machine, prints the findings; 0 if there is no problem, else 1."""
    findings = examine(config)
    if config.json:
        print(json.dumps(findings, indent=2))
    else:
        _show(findings)
    return 1 if findings["problems"] else 0


def examine(config: Config) -> dict[str, Any]:
    """All findings as a JSON-able dictionary; its entry "problems" is a list of one-line strings."""
    problems: list[str] = []
    packages = _packages(problems)
    if problems:  # Without its packages nothing below can run.
        return {"packages": packages, "problems": problems}
    # First, and before this process takes the device, which some devices give to one process only.
    check = _check_in_child(config.runtime, problems)
    # Deferred: `--help` must not load jax, and a machine without it must still get an answer.
    from experiments import runtime

    runtime.setup(config.runtime)
    return {
        "system": _system(problems),
        "devices": _devices(config, problems),
        "packages": packages,
        "extras": _extras(),
        "backends": _backends(),
        "compilation cache": _cache(config.runtime),
        "video": _video(),
        "check": check,
        "problems": problems,
    }


def _packages(problems: list[str]) -> dict[str, str]:
    from experiments import workdir

    versions = workdir.package_versions(CORE)
    missing = [name for name in CORE if name not in versions]
    if missing:
        problems.append(f"missing packages: {', '.join(missing)}; run pip install -e . in the checkout")
    return versions


def _system(problems: list[str]) -> dict[str, Any]:
    from experiments import runtime

    report = {"python": platform.python_version(), "system": platform.platform(), "cpu cores": runtime.usable_cpus()}
    memory = _available_memory()
    if memory is not None:
        report["free memory (GiB)"] = round(memory / 2**30, 2)
        if memory < _MIN_FREE_GIB * 2**30:
            problems.append(f"only {memory / 2**30:.2f} GiB of memory are free; close programs, or expect to be killed")
    for name, folder in (("current folder", pathlib.Path.cwd()), ("temporary folder", _temporary_folder())):
        free = shutil.disk_usage(folder).free / 2**30
        report[f"free disk, {name} (GiB)"] = round(free, 2)
        if free < _MIN_FREE_GIB:
            problems.append(f"only {free:.2f} GiB of disk are free in {folder}")
    if not os.access(pathlib.Path.cwd(), os.W_OK):
        problems.append(f"{pathlib.Path.cwd()} cannot be written; give every run a --workdir elsewhere")
    return report


def _devices(config: Config, problems: list[str]) -> list[dict[str, Any]]:
    import jax

    has_nvidia = any(pathlib.Path("/dev").glob("nvidia[0-9]*"))
    is_chosen = config.runtime.platform is not None or bool(os.environ.get("JAX_PLATFORMS"))
    if has_nvidia and jax.default_backend() == "cpu" and not is_chosen:
        problems.append("there is an NVIDIA GPU but jax runs on the CPU; run pip install -e '.[cuda]'")
    devices = []
    for device in jax.devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        devices.append(
            {
                "device": str(device),
                "platform": device.platform,
                "kind": device.device_kind,
                "memory (GiB)": None if memory is None else round(memory / 2**30, 1),
            }
        )
    return devices


def _extras() -> dict[str, dict[str, Any]]:
    from experiments import workdir

    found = workdir.package_versions(tuple(package for package, _ in EXTRAS.values()))
    return {name: {"version": found.get(package), "adds": adds} for name, (package, adds) in EXTRAS.items()}


def _backends() -> dict[str, str]:
    """The backend that each kernel operation takes on this platform."""
    import renderers.kernels
    from renderers.kernels import dispatch

    folder = pathlib.Path(renderers.kernels.__path__[0])
    return {path.parent.name: dispatch.choose() for path in sorted(folder.glob("*/api.py"))}


def _cache(runtime_config: config_fields.RuntimeConfig) -> dict[str, Any]:
    from experiments import runtime

    folder = runtime.set_compilation_cache(runtime_config.compilation_cache)
    if not folder:
        return {"folder": None, "note": "off, or nowhere to write: every start compiles anew"}
    files = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
    return {"folder": str(folder), "writable": os.access(folder, os.W_OK), "MiB": round(sum(files) / 2**20, 1)}


def _video() -> dict[str, Any]:
    if importlib.util.find_spec("av") is None:
        return {"writes": "GIF", "av": None}
    import av

    return {"writes": "MP4 (H.264)" if "libx264" in av.codecs_available else "GIF", "av": av.__version__}


def render_check(runtime_config: config_fields.RuntimeConfig) -> dict[str, Any]:
    """Renders ten Gaussians on the chosen backend and compares image and gradient with the reference.

    Returns:
        The backend, the mean error of the image, the largest error of the gradient relative to its largest entry, the
        seconds it took, and what Numba runs on. Starts the jax backend with the given settings.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import runtime
    from renderers.cameras.camera import Camera
    from renderers.gaussians.rasterize import rasterize
    from renderers.kernels import dispatch

    runtime.setup(runtime_config)
    rng = np.random.default_rng(0)
    n = 10
    means = jnp.asarray(rng.uniform(-0.6, 0.6, (n, 3)), jnp.float32)
    quaternions = jnp.asarray(rng.normal(size=(n, 4)), jnp.float32)
    scales = jnp.asarray(rng.uniform(0.1, 0.3, (n, 3)), jnp.float32)
    opacities = jnp.asarray(rng.uniform(0.4, 0.9, n), jnp.float32)
    colors = jnp.asarray(rng.uniform(size=(n, 3)), jnp.float32)
    camera_from_world = jnp.eye(4).at[2, 3].set(3.0)
    camera = Camera(camera_from_world, jnp.array([48.0, 48.0]), jnp.array([20.0, 16.0]), (32, 40))

    def outcome(backend: Any) -> tuple[Any, Any]:
        def loss(means: Any) -> tuple[Any, Any]:
            color = rasterize(means, quaternions, scales, opacities, colors, camera, backend=backend).color
            return jnp.mean(color**2), color

        gradient, color = jax.grad(loss, has_aux=True)(means)
        return np.asarray(color), np.asarray(gradient)

    backend = dispatch.choose()
    began = time.perf_counter()
    color, gradient = outcome(backend)
    seconds = time.perf_counter() - began
    expected_color, expected_gradient = outcome("reference")
    return {
        "backend": backend,
        "image error": float(np.abs(color - expected_color).mean()),
        "gradient error": float(np.abs(gradient - expected_gradient).max() / np.abs(expected_gradient).max()),
        "seconds to compile and run": round(seconds, 2),
        **_numba(),
    }


def _check_in_child(runtime_config: config_fields.RuntimeConfig, problems: list[str]) -> dict[str, Any]:
    """Runs `render_check` in a process of its own: native code that does not suit a machine ends its process."""
    code = (
        "import json, sys; from experiments import config_fields, doctor; "
        "print(json.dumps(doctor.render_check(config_fields.RuntimeConfig(**json.loads(sys.argv[1])))))"
    )
    settings = json.dumps(dataclasses.asdict(runtime_config))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, settings], capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        problems.append(f"rendering ten Gaussians took more than {_CHECK_SECONDS} s")
        return {"outcome": "no end"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        problems.append(f"rendering ten Gaussians failed (exit code {done.returncode}): {last}")
        return {"outcome": "failed", "exit code": done.returncode, "message": last}
    found = json.loads(done.stdout.splitlines()[-1])
    # The image's error is a mean: at single pixels the cut-off at 1/255 may fall either way.
    if not (found["image error"] < 1e-5 and found["gradient error"] < 1e-2):
        problems.append(
            f"backend {found['backend']} differs from the reference: image {found['image error']:.2g}, "
            f"gradient {found['gradient error']:.2g}; report this with the output of doctor --json"
        )
    return found


def _numba() -> dict[str, Any]:
    if importlib.util.find_spec("numba") is None:
        return {}
    import numba

    try:
        layer = numba.threading_layer()  # pyright: ignore[reportPrivateImportUsage]
    except ValueError:  # No parallel kernel has run in this process.
        layer = "not in use"
    return {"numba threading layer": layer, "numba threads": numba.get_num_threads()}


def _available_memory() -> int | None:
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable")), None)


def _temporary_folder() -> pathlib.Path:
    import tempfile

    return pathlib.Path(tempfile.gettempdir())


def _show(findings: dict[str, Any]) -> None:
    from rich import box, console, markup, table

    screen = console.Console()

    def section(title: str, columns: list[str], rows: list[list[Any]]) -> None:
        grid = table.Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        grid.show_header, grid.box = any(columns), box.SIMPLE_HEAD if any(columns) else None
        for index, column in enumerate(columns):
            grid.add_column(column, overflow="fold", style="bold" if index == 0 else "")
        for row in rows:
            grid.add_row(*(markup.escape("-" if cell is None else str(cell)) for cell in row))
        screen.print(grid)

    pairs: Callable[[dict[str, Any]], list[list[Any]]] = lambda part: [list(pair) for pair in part.items()]  # noqa: E731
    for name in ("system", "packages"):
        if name in findings:
            section(name, ["", ""], pairs(findings[name]))
    if "devices" in findings:
        section("devices", list(findings["devices"][0]), [list(device.values()) for device in findings["devices"]])
        extras = [[f"[{name}]", e["version"] or "missing", e["adds"]] for name, e in findings["extras"].items()]
        section("extras", ["extra", "version", "adds"], extras)
        section("kernels", ["operation", "backend here"], pairs(findings["backends"]))
        for name in ("compilation cache", "video", "check"):
            section(name, ["", ""], pairs(findings[name]))
    for problem in findings["problems"]:
        screen.print(f"[bold red]problem:[/] {markup.escape(problem)}", soft_wrap=True)
    if not findings["problems"]:
        screen.print("[bold green]no problems found[/]")


if __name__ == "__main__":
    flags.run(main, Config())
