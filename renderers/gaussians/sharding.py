"""Rendering over a device mesh: many views dealt out, or one view of Gaussians that are dealt out.

Both are `shard_map`s around the ordinary renderer and give what it gives on one device. Views need every Gaussian on
every device and exchange nothing but gradients. Sharded Gaussians keep parameters (and whatever an optimizer holds for
them) in 1 / d of the memory: each device projects and colours its own, all devices gather the 2D splats (a third to a
sixth of the parameters), and each composites its own band of tile rows; backwards, the gather becomes a reduce-scatter
of gradients to the owners (the scheme of Grendel, arXiv 2406.18533, with the all-to-all replaced by an all-gather,
whose shapes are static).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians, sh_degree
from renderers.gaussians.projection import project
from renderers.gaussians.rasterize import Rendering, render_views
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.kernels import tiling
from renderers.kernels.composite.api import composite
from renderers.kernels.dispatch import Backend


def render_views_sharded(
    gaussians: Gaussians,
    cameras: Camera,
    mesh: Mesh,
    *,
    axis: str,
    sh_degree: int | None = None,
    background: Float[Array, " c"] | None = None,
    antialias: bool = False,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Rendering:
    """Render many cameras, dealt out over an axis of a mesh; equal to `render_views`.

    Differentiable as `render_views` is; gradients to the Gaussians are summed over devices.

    Args:
      gaussians: the scene, the same on every device.
      cameras: one record whose arrays have a leading axis of views (`stack_cameras`). A number of views that the
        devices do not divide is made up with copies of the last, whose renderings are dropped.
      mesh, axis: devices, and the name of the axis to deal over.
      sh_degree, background, antialias, capacity, backend: see `rasterize`.

    Returns:
      A Rendering whose arrays have a leading axis of views, sharded over `axis`.

    Raises:
      ValueError: the mesh has no such axis.
    """
    devices = _axis_size(mesh, axis)
    views = cameras.camera_from_world.shape[0]
    cameras = jax.tree.map(lambda leaf: _pad_rows(jnp.asarray(leaf), devices, mode="edge"), cameras)
    whole, dealt = PartitionSpec(), PartitionSpec(axis)

    def body(gaussians, cameras, background):
        return render_views(
            gaussians,
            cameras,
            sh_degree=sh_degree,
            background=background,
            antialias=antialias,
            capacity=capacity,
            backend=backend,
        )

    run = jax.shard_map(body, mesh=mesh, in_specs=(whole, dealt, whole), out_specs=dealt)
    return jax.tree.map(lambda leaf: leaf[:views], run(gaussians, cameras, background))


def render_gaussians_sharded(
    gaussians: Gaussians,
    camera: Camera,
    mesh: Mesh,
    *,
    axis: str,
    degree: int | None = None,
    background: Float[Array, " 3"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    means2d_probe: Float[Array, "n 2"] | None = None,
    mask: Bool[Array, "h w"] | None = None,
    backend: Backend | None = None,
) -> Rendering:
    """Render one camera with the Gaussians dealt out over an axis of a mesh; equal to `render`.

    Each device projects its Gaussians and composites its band of tile rows. Differentiable as `rasterize` is.

    Args:
      gaussians: any number; one that the devices do not divide is made up with invisible ones.
      camera: see `rasterize`, as for the arguments that are not listed here.
      mesh, axis: devices, and the name of the axis to deal over.
      degree: spherical-harmonic bands to use, static; None uses all that the record has.
      capacity: static bound on the (Gaussian, tile) intersections of one band; None takes `tiling.default_capacity`.

    Returns:
      A Rendering: images sharded by rows, radii and means2d by Gaussians; overflow is the sum over bands.

    Raises:
      ValueError: the mesh has no such axis.
    """
    devices = _axis_size(mesh, axis)
    n, dtype = gaussians.means.shape[0], gaussians.means.dtype
    degree = sh_degree(gaussians) if degree is None else degree
    height, width = camera.size
    band = -(-tiling.grid(camera.size)[0] // devices) * tiling.TILE
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), camera)
    background = jnp.zeros(gaussians.sh.shape[-1], dtype) if background is None else background.astype(dtype)
    probe = jnp.zeros((n, 2), dtype) if means2d_probe is None else means2d_probe
    drawn = jnp.ones(camera.size, bool) if mask is None else mask

    def body(gaussians, probe, drawn, camera, background):
        projected = project(
            gaussians.means,
            gaussians.quaternions,
            jnp.exp(gaussians.log_scales),
            jax.nn.sigmoid(gaussians.opacity_logits),
            camera,
            antialias=antialias,
            blur=blur,
            near=near,
            far=far,
        )
        colors = sh_colors(gaussians.sh, gaussians.means, camera, degree)
        features = jnp.concatenate([colors, projected.depths[:, None]], 1)
        own = (projected.means2d, projected.conics, projected.opacities, features, probe)
        means2d, conics, opacities, features, probe = (_gather(column, axis) for column in own)
        extents, depths = (_gather(lax.stop_gradient(v), axis) for v in (projected.extents, projected.depths))
        top = (lax.axis_index(axis) * band).astype(dtype)
        blended = composite(
            means2d - jnp.stack([jnp.zeros_like(top), top])[None],
            conics,
            opacities,
            features,
            extents,
            depths,
            size=(band, width),
            probe=probe,
            mask=drawn,
            capacity=capacity,
            backend=backend,
        )
        color = blended.image[..., :-1] + blended.transmittance[..., None] * background[None, None]
        overflow = lax.psum(blended.overflow, axis)
        images = (color, 1 - blended.transmittance, blended.image[..., -1])
        return images, (projected.radii, projected.means2d), overflow

    whole, dealt = PartitionSpec(), PartitionSpec(axis)
    run = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(dealt, dealt, dealt, whole, whole),
        out_specs=(dealt, dealt, whole),
    )
    rows = jnp.pad(drawn, ((0, band * devices - height), (0, 0)))
    padded = jax.tree.map(lambda leaf: _pad_rows(leaf, devices, mode="constant"), gaussians)
    # an opacity of sigmoid(0) would show: the made-up Gaussians are infinitely far below any threshold
    logits = jnp.where(jnp.arange(padded.opacity_logits.shape[0]) < n, padded.opacity_logits, -jnp.inf)
    padded = Gaussians(
        means=padded.means,
        quaternions=padded.quaternions,
        log_scales=padded.log_scales,
        opacity_logits=logits,
        sh=padded.sh,
    )
    probe = _pad_rows(probe, devices, mode="constant")
    (color, alpha, depth), (radii, means2d), overflow = run(padded, probe, rows, camera, background)
    return Rendering(
        color=color[:height],
        alpha=alpha[:height],
        depth=depth[:height],
        radii=radii[:n],
        means2d=means2d[:n],
        overflow=overflow,
    )


def _axis_size(mesh: Mesh, axis: str) -> int:
    if axis not in mesh.shape:
        raise ValueError(f"expected an axis of the mesh, {tuple(mesh.shape)}, got {axis!r}")
    return mesh.shape[axis]


def _gather(column, axis):
    """All devices' rows, in the order of the devices; backwards, every owner receives the sum over devices."""
    return lax.all_gather(column, axis, tiled=True)


def _pad_rows(rows, devices, mode):
    """Rows made up to a multiple of the number of devices."""
    missing = -rows.shape[0] % devices
    return jnp.pad(rows, ((0, missing), *((0, 0) for _ in rows.shape[1:])), mode=mode) if missing else rows
