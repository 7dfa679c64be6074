"""A splat fit as a program for the training loop: start, steps, refinements, evaluation, export."""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments import media, metrics, runtime, train_loop
from experiments.data.capture_record import Capture
from experiments.splats import results, training
from experiments.splats.evaluation import Evaluator
from experiments.splats.memory import preflight
from experiments.splats.scene import initial_gaussians, normalisation
from experiments.splats.settings import FitConfig
from experiments.splats.views import Batches, Views, divide
from renderers.kernels import tiling
from renderers.kernels.dispatch import choose


class Fit:
    """One run of `fit_gaussians` without its loop.

    Args:
      capture: photographs with poses.
      config: the run's.
      stop: polled in loops over views.

    Raises:
      InputError: the capture and the flags do not fit each other, or the memory of the machine.
    """

    def __init__(self, capture: Capture, config: FitConfig, stop) -> None:
        self._config, self._stop = config, stop
        self._frame = normalisation(capture)
        self._views = divide(capture, self._frame, config)
        self._mesh = runtime.data_mesh() if jax.device_count() > 1 else None
        self._batches = Batches(self._views, config, self._mesh)
        self._needs_capacity = choose(config.backend) == "xla"
        self.capacity: int | None = None
        self._evaluator = Evaluator(self._views, config, lambda: self.capacity)
        self._capture = capture
        self.notes = (
            f"{len(self._views.train)} views to train on, {len(self._views.test)} to test on; "
            f"backend {choose(config.backend)}",
            preflight(config, [self._views.images[i].shape for i in self._views.train]),
            *_stop_note(self._views),
        )

    def init(self) -> tuple[training.State, dict[str, Any]]:
        """The fresh state and its sizes."""
        config, capture = self._config, self._capture
        use_points = config.init == "points" or (config.init == "auto" and capture.points is not None)
        gaussians = initial_gaussians(
            capture,
            self._frame,
            use_points=use_points,
            number=config.init_gaussians,
            degree=config.sh_degree,
            most=config.growth.max_gaussians,
            seed=config.seed,
        )
        number = gaussians.means.shape[0]
        state = training.initial_state(gaussians, _capacity(number, config))
        intersections = self._count(state) if self._needs_capacity else None
        return self._everywhere(state), {"capacity": state.alive.shape[0], "intersections": intersections}

    def make_target(self, aux: dict[str, Any]) -> training.State:
        """Shapes of a saved state."""
        capacity, config = aux["capacity"], self._config

        def rows(*shape):
            return jnp.zeros((4, *shape), jnp.float32)

        like = training.Gaussians(
            means=rows(3),
            quaternions=rows(4),
            log_scales=rows(3),
            opacity_logits=rows(),
            sh=rows((config.sh_degree + 1) ** 2, 3),
        )
        shapes = jax.eval_shape(lambda: training.initial_state(like, capacity))
        if self._mesh is None:
            return shapes
        whole = NamedSharding(self._mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)

    def program(self, folder: pathlib.Path) -> train_loop.Program:
        """The functions that the loop calls; previews go to `previews` in the folder."""

        def preview(state, step):
            shown = (self._views.test or self._views.train)[0]
            picture, _ = self._evaluator.picture(state, shown)
            if jax.process_index() == 0:
                (folder / "previews").mkdir(exist_ok=True)
                media.write_png(folder / "previews" / f"{step:06d}.png", picture)

        return train_loop.Program(
            step=self._step, batch=self._batches, reshape=self._reshape, evaluate=self._evaluate, preview=preview
        )

    def _step(self, state, aux, batch, step, fraction):
        return training.update(
            state,
            batch,
            step,
            fraction,
            config=self._config,
            white=self._views.white,
            capacity=aux["intersections"],
            mesh=self._mesh,
        )

    def _reshape(self, state, aux, step):
        """Refinement every so many steps: births, relocations, room for them, room for intersections."""
        growth = self._config.growth
        if step < growth.start or step % growth.every or step == 0:
            return state, aux
        spent = aux["seconds"] / self._config.max_seconds if self._config.max_seconds else 0.0
        if max(step / self._config.steps, spent) > growth.until:
            return state, aux
        alive = int(state.alive.sum())
        wanted = min(math.ceil(growth.factor * alive), growth.max_gaussians)
        if wanted > aux["capacity"]:
            aux = {**aux, "capacity": _capacity(wanted, self._config)}
            state = self._everywhere(training.grown(state, aux["capacity"]))
        births, at = jax.device_put((np.int32(max(wanted - alive, 0)), np.int32(step)))
        state = training.refine(state, births, at, seed=self._config.seed)
        if self._needs_capacity:
            dropped = int(state.overflow)
            room = aux["intersections"] or 0  # none where the run was begun on another backend
            needed = max(self._count(state), 2 * room if dropped else 0)
            if dropped:
                print(f"step {step}: a render dropped {dropped} intersections; room grows to {needed}", flush=True)
            aux = {**aux, "intersections": max(needed, room)}
            self.capacity = aux["intersections"]
            state = training.without_overflow(state)
        return state, aux

    def _count(self, state) -> int:
        """Room for the intersections of the fullest of some training views, rounded up to a power of two."""
        chosen = self._views.train[:: max(1, len(self._views.train) // 8)]
        counts = [int(training.intersections(state, self._views.cameras[i], config=self._config)) for i in chosen]
        return tiling.next_capacity(math.ceil(1.25 * max(counts)))

    def _everywhere(self, state):
        if self._mesh is None:
            return state
        whole = NamedSharding(self._mesh, PartitionSpec())

        def put(leaf):
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

        return jax.tree.map(put, state)

    def _evaluate(self, state, step):
        return self._evaluator.test(state, lambda: self._stop.requested)

    def export(self, folder: pathlib.Path, finished: train_loop.Finished) -> None:
        """Scene, pictures, video, report and final numbers."""
        # one process alone writes, and must not wait for the others in a program over all devices
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf.addressable_data(0)), finished.state)
        number = results.write_scene(folder, state, self._frame)
        quality = self._evaluator.test(state, lambda: self._stop.requested)
        self._stop.exit_if_requested()
        video = results.write_video(
            folder, state, self._views, self._evaluator, self._config.turntable_frames, lambda: self._stop.requested
        )
        self._stop.exit_if_requested()
        final = {**(quality or {}), "num_gaussians": number, "seconds": finished.seconds, "steps": finished.step}
        summary = {
            "data": self._config.data,
            **final,
            "training views": len(self._views.train),
            "test views": len(self._views.test),
        }
        with metrics.MetricWriter(folder, restored_step=finished.step) as writer:
            writer.write(finished.step, {**(quality or {}), "seconds": finished.seconds})
        results.write_report(folder, state, self._views, self._evaluator, summary, video)
        metrics.write_final(folder, final)
        print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)


def _capacity(number: int, config: FitConfig) -> int:
    """Power of two that holds the number, within the cap."""
    return max(number, min(1 << max(10, (number - 1).bit_length()), config.growth.max_gaussians))


def _stop_note(views: Views) -> list[str]:
    closed = [stop for stop in views.stops if not stop.is_open]
    if not closed:
        return []
    rows, columns = int((closed[0].rows < 1).sum()), int((closed[0].columns < 1).sum())
    return [f"the photographs share a dark rim of {rows} rows and {columns} columns, taken for a field stop"]
