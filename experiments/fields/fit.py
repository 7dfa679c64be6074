"""A field fit as a program for the training loop: start, steps, occupancy, evaluation, export."""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments import media, metrics, progress, runtime, train_loop
from experiments.data.capture_record import Capture
from experiments.errors import InputError
from experiments.fields import results, space, surface, training
from experiments.fields.evaluation import Evaluator
from experiments.fields.rendering import FieldRenderer, Setup
from experiments.fields.settings import FieldConfig
from experiments.fields.views import Batches, divide, split, stacked
from renderers.kernels.dispatch import choose
from renderers.meshes.formats import write_mesh

_FULL = 0.9  # of the buffer is what rays may ask for when their number is chosen
_SPARSE, _CROWDED = 0.6, 1.1  # outside of which it is chosen anew
_FEWEST_RAYS = 16


class Fit:
    """One run of `fit_field` without its loop.

    Args:
      capture: photographs with poses, as they are, distortion included.
      config: the run's.
      stop: polled in loops over views.

    Raises:
      InputError: the capture and the flags do not fit each other.
    """

    def __init__(self, capture: Capture, config: FieldConfig, stop) -> None:
        self._config, self._stop, self._capture = config, stop, capture
        self._train, _ = split(capture, config)
        unbounded = config.scene == "unbounded" or (config.scene == "auto" and not space.is_object(capture))
        if unbounded and config.surface != "density":
            raise InputError("--surface=neus and volsdf need a box: choose --scene=object")
        self._space = space.find_space(capture, self._train, unbounded=unbounded)
        self._views = divide(capture, self._space, config)
        self._setup = Setup(
            unbounded=unbounded,
            masked=self._views.masked,
            background=self._views.background,
            random_background=self._views.masked and config.background in ("auto", "random"),
        )
        self._mesh = runtime.data_mesh() if jax.device_count() > 1 else None
        if self._mesh is not None and config.sampling.rays % self._mesh.size:
            raise InputError(f"--sampling.rays={config.sampling.rays} does not divide over {self._mesh.size} devices")
        self._batches = Batches(self._views, config.seed, self._mesh)
        self._cameras = self._everywhere(stacked(self._views))
        self._renderer = FieldRenderer(config, self._setup)
        self._evaluator = Evaluator(self._views, self._renderer)
        self.rays = config.sampling.rays
        kind = "a place without bounds" if unbounded else "an object in a box"
        backend = choose(config.backend, pallas=False)
        self.notes = (
            f"{len(self._views.train)} views to train on, {len(self._views.test)} to test on; {kind} of "
            f"{2 * self._space.frame.scale:.4g} units; field {config.field}, backend {backend}",
        )

    def init(self) -> tuple[training.State, dict[str, Any]]:
        """The fresh state and its sizes."""
        config, carved = self._config, None
        if self._setup.masked and not self._setup.unbounded:
            carved = space.carve(self._capture, self._train, self._space, config.sampling.occupancy)
        state = self._everywhere(training.fresh_state(config, self._setup, carved))
        frame = [*map(float, self._space.frame.center), self._space.frame.scale]
        aux = {"rays": config.sampling.rays, "frame": frame, "unbounded": self._setup.unbounded}
        if not self._setup.unbounded:
            first = self._batches(0, config.sampling.rays)
            wanted = training.samples_wanted(state.grid, first, self._cameras, config=config)
            aux["rays"] = self._fitting_rays(float(wanted))
        return state, aux

    def make_target(self, aux: dict[str, Any]) -> training.State:
        """Shapes of a saved state.

        Raises:
          InputError: it is of a scene with bounds and this one has none, or the other way round.
        """
        if aux["unbounded"] != self._setup.unbounded:
            kind = "unbounded" if aux["unbounded"] else "object"
            raise InputError(f"the checkpoint is of another kind of scene; resume with --scene={kind}")
        shapes = jax.eval_shape(lambda: training.fresh_state(self._config, self._setup, None))
        if self._mesh is None:
            return shapes
        whole = NamedSharding(self._mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)

    def program(self, folder: pathlib.Path) -> train_loop.Program:
        """The functions that the loop calls; previews go to `previews` in the folder."""

        def preview(state, step):
            shown = (self._views.test or self._views.train)[0]
            picture, _, _ = self._evaluator.picture(_local(state), shown)
            if jax.process_index() == 0:
                (folder / "previews").mkdir(exist_ok=True)
                media.write_png(folder / "previews" / f"{step:06d}.png", picture)

        def evaluate(state, step):
            return self._evaluator.test(_local(state), lambda: self._stop.requested)

        def batch(step):
            return self._batches(step, self.rays)

        return train_loop.Program(
            step=self._step, batch=batch, reshape=self._reshape, evaluate=evaluate, preview=preview
        )

    def _step(self, state, aux, batch, step, fraction):
        return training.update(
            state, batch, self._cameras, step, fraction, config=self._config, setup=self._setup, mesh=self._mesh
        )

    def _reshape(self, state, aux, step):
        """Every so many steps: which cells are occupied, and how many rays fill the buffer."""
        sampling = self._config.sampling
        if not self._setup.unbounded and step >= sampling.occupancy_start and step % sampling.occupancy_every == 0:
            whole = step < sampling.occupancy_start + sampling.occupancy_every
            at = jax.device_put(np.int32(step))
            state = training.look_around(state, at, config=self._config, setup=self._setup, whole=whole)
            aux = {**aux, "rays": self._adapted_rays(state, aux["rays"], step)}
            state = training.looked_at(state)
        self.rays = aux["rays"]
        return state, aux

    def _adapted_rays(self, state, rays: int, step: int) -> int:
        """Another number of rays where their samples crowd the buffer or leave much of it empty."""
        samples, dropped, room = int(state.samples), int(state.dropped), self._config.sampling.capacity
        if _SPARSE * room <= samples <= _CROWDED * room or not samples:
            return rays
        fitting = self._fitting_rays(samples / rays)
        if dropped and fitting < rays:
            print(
                f"step {step}: {dropped} of {rays} rays found no room for their samples; {fitting} rays from now on, "
                "or choose a larger --sampling.capacity",
                flush=True,
            )
        return fitting

    def _fitting_rays(self, samples_of_a_ray: float) -> int:
        """The number of rays that fills the buffer without crowding it, of three binary digits: few ever compile."""
        most = _FULL * self._config.sampling.capacity / max(samples_of_a_ray, 1.0)
        unit = max(2 ** math.floor(math.log2(max(most, 1.0))) // 4, 1)
        rays = max(_FEWEST_RAYS, int(most // unit) * unit)
        devices = 1 if self._mesh is None else self._mesh.size
        return max(rays // devices, 1) * devices

    def _everywhere(self, tree):
        if self._mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        whole = NamedSharding(self._mesh, PartitionSpec())

        def put(leaf):
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

        return jax.tree.map(put, tree)

    def export(self, folder: pathlib.Path, finished: train_loop.Finished) -> None:
        """Pictures, video, mesh, report and final numbers."""
        state = _local(finished.state)

        def stopped() -> bool:
            return self._stop.requested

        held_out = results.HeldOut(folder, self._views)
        quality = held_out.write(state, self._evaluator, stopped)
        self._stop.exit_if_requested()
        video = results.write_video(folder, state, self._views, self._evaluator, self._config.turntable_frames, stopped)
        self._stop.exit_if_requested()
        quality = {**(quality or {}), **self._write_mesh(folder, state, held_out, stopped)}
        self._stop.exit_if_requested()
        with metrics.MetricWriter(folder, restored_step=finished.step) as writer:
            writer.write(finished.step, {**quality, "seconds": finished.seconds})
        final = {**quality, "seconds": finished.seconds, "steps": finished.step}
        summary = {
            "data": self._config.data,
            "field": self._config.field,
            **final,
            "training views": len(self._views.train),
            "test views": len(self._views.test),
        }
        results.write_report(folder, self._views, held_out, summary, video)
        metrics.write_final(folder, final)
        print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)

    def _write_mesh(self, folder: pathlib.Path, state, held_out: results.HeldOut, stopped) -> dict[str, float]:
        """Write asset.glb in the capture's frame; its likeness to the field where it is the whole scene."""
        if not self._config.mesh.resolution:
            return {}
        with progress.Phases(enabled=jax.process_index() == 0) as phases:

            def told(phase: str, done: int, total: int) -> None:
                self._stop.exit_if_requested()
                phases.update(phase, done, total)

            mesh = surface.extract(state, self._config, self._setup, told)
        if mesh is None:
            print("no surface was found in the field: no asset.glb; choose another --mesh.level", flush=True)
            return {}
        write_mesh(folder / "asset.glb", surface.in_world(mesh, self._space.frame))
        if self._setup.unbounded:  # the mesh ends with the box, the pictures do not
            return {"mesh_faces": len(mesh.faces)}
        likeness, held_out.mesh_pictures = surface.compare(mesh, self._views, held_out.shown, held_out.colors, stopped)
        return {"mesh_faces": len(mesh.faces), **({} if likeness is None else {"mesh_psnr": likeness})}


def _local(state: training.State) -> training.State:
    """The state on one device: what is rendered for pictures needs no others."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf.addressable_data(0)), state)
