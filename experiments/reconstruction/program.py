"""A reconstruction from reading the input to the last file."""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import media, metrics, progress, report
from experiments.errors import InputError
from experiments.reconstruction import fields, pictures, surface
from experiments.reconstruction.pictures import Pictures
from experiments.reconstruction.settings import ReconstructConfig
from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import orbit
from renderers.gaussians.formats import read_splats
from renderers.meshes import connectivity
from renderers.meshes.formats import FormatError, write_mesh
from renderers.meshes.mesh import Mesh
from renderers.meshes.render import render_mesh

_VIEW_ANGLE = np.radians(35.0)
_ELEVATION = np.radians(15.0)


class Reconstruction:
    """One run of `reconstruct`: the input is read, and refused, before anything is written.

    Args:
      config: the run's.
      stop: asked between parts; a stopped run has written nothing.

    Raises:
      InputError: the input cannot be read, or is neither splats nor a run.
    """

    def __init__(self, config: ReconstructConfig, stop) -> None:
        self._config, self._stop = config, stop
        self._began = time.monotonic()
        path = pathlib.Path(config.input)
        if not config.input or not path.exists():
            raise InputError(f"--input={config.input}: expected splats or the folder of a fit; nothing is there")
        self._field = fields.load(path) if (path / "config.json").is_file() and fields.is_run(path) else None
        if self._field is None:
            self._gaussians = self._splats(path)

    def run(self, folder: pathlib.Path) -> dict[str, float]:
        """Makes the mesh, writes all results and returns the final numbers."""
        mesh, tests = self._of_field() if self._field is not None else self._of_splats()
        self._stop.exit_if_requested()
        found, shown = surface.compare(mesh, tests)
        if self._field is not None:
            mesh = fields.in_world(mesh, self._field)
        write_mesh(folder / "asset.glb", mesh)
        video = self._turntable(folder, mesh)
        final = {
            "num_vertices": len(mesh.vertices),
            "num_faces": len(mesh.faces),
            "watertight": float(connectivity.is_watertight(np.asarray(mesh.faces))),
            **({"psnr": float(np.mean(found))} if found else {}),
            "seconds": time.monotonic() - self._began,
        }
        sections = [
            report.Section(title="Turntable", videos=[] if video is None else [report.Video(path=video)]),
            report.Section(title="Cameras that were not used: input, mesh, error x 4", pictures=shown),
        ]
        summary = {"input": self._config.input, **final}
        report.write_report(folder / "report.html", title="Mesh of a scene", summary=summary, sections=sections)
        metrics.write_final(folder, final)
        print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)
        return final

    def _of_splats(self) -> tuple[Mesh, Pictures]:
        config, box = self._config, pictures.splat_extent(self._gaussians)
        around = pictures.cameras_around(box, config) if config.data is None else pictures.capture_cameras(config)
        trains, tests = around
        with progress.Progress(len(trains), description="pictures") as bar:

            def taken(count: int) -> None:
                self._stop.exit_if_requested()
                bar.update(count)

            seen = pictures.take(self._gaussians, trains, config.opaque, taken)
        if config.method == "fusion":
            shape = surface.fused_shape(seen, box, config)
        else:
            shape = surface.density_shape(self._gaussians, box, config)
        print(f"surface of {len(shape.faces):,} faces", flush=True)
        self._stop.exit_if_requested()
        with progress.Progress(config.steps, description="texture") as bar:

            def swept(sweep: int, error: float) -> None:
                self._stop.exit_if_requested()
                bar.update(sweep, {"error": error})

            mesh = surface.textured(shape, seen, config, swept)
        return mesh, pictures.take(self._gaussians, tests, config.opaque)

    def _of_field(self) -> tuple[Mesh, Pictures]:
        config, field = self._config, self._field
        assert field is not None
        mesh = fields.extract(field, config)
        print(f"surface of {len(mesh.faces):,} faces", flush=True)
        _, tests = pictures.cameras_around(np.array([[-1.0] * 3, [1.0] * 3]), config)
        return mesh, fields.take(field, tests)

    def _splats(self, path: pathlib.Path):
        """The splats of a file or of a run's folder."""
        if path.is_dir() and not (path / "meta.json").is_file():
            path = path / "splats.ply"
        try:
            return read_splats(path)
        except FormatError as error:
            raise InputError(f"{error}; expected a splat file, or the folder of fit_gaussians or fit_field") from error

    def _turntable(self, folder: pathlib.Path, mesh: Mesh) -> pathlib.Path | None:
        """A turn around the mesh, lit; None without frames."""
        config = self._config
        if not config.turntable_frames:
            return None
        vertices = np.asarray(mesh.vertices)
        low, high = vertices.min(0), vertices.max(0)
        up = np.zeros(3, np.float32)
        up["xyz".index(config.up[1])] = 1.0 if config.up[0] == "+" else -1.0
        distance = float(np.linalg.norm(high - low)) / 2 / np.sin(_VIEW_ANGLE / 2)
        poses = orbit(
            config.turntable_frames,
            distance,
            elevation=_ELEVATION,
            target=jnp.asarray((low + high) / 2, jnp.float32),
            up=jnp.asarray(up),
        )
        size = min(config.image_size, 512)
        focal = jnp.full(2, size / (2 * np.tan(_VIEW_ANGLE / 2)), jnp.float32)
        camera = Camera(poses[0], focal, jnp.full(2, size / 2, jnp.float32), (size, size))
        frames = []
        for pose in poses:
            self._stop.exit_if_requested()
            frames.append(np.asarray(_lit(mesh, dataclasses.replace(camera, camera_from_world=pose))))
        return media.write_video(folder / "turntable.mp4", frames, fps=24)


@jax.jit
def _lit(mesh: Mesh, camera: Camera):
    return render_mesh(mesh, camera, background=jnp.ones(3, jnp.float32)).color
