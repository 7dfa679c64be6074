"""What a mesh is fitted to: images of many views, rendered from a mesh file or read from a capture with alpha.

All is in the object's own frame, where its box is centred on the origin and has a longest side of 1: rates, edge
lengths and errors mean the same for every object. Results go back to the source's frame.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.data.captures import load_capture, split_holdout
from experiments.errors import InputError
from experiments.splats.scene import Normalisation, cameras, focus_point, normalisation
from experiments.surfaces.fit import ViewTargets, shape_image
from experiments.surfaces.settings import MeshFitConfig
from experiments.surfaces.shapes import demo_shape
from renderers.cameras.camera import Camera, stack_cameras
from renderers.cameras.trajectories import fibonacci_hemisphere
from renderers.files import FormatError
from renderers.meshes import connectivity
from renderers.meshes.carving import carve
from renderers.meshes.cleanup import merge_vertices
from renderers.meshes.extraction import grid_points
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import Mesh
from renderers.meshes.rasterize import rasterize_mesh
from renderers.meshes.render import render_mesh

_FIELD_OF_VIEW = np.radians(35.0)
_SUFFIXES = (".obj", ".glb", ".gltf", ".ply")
_COARSE_GRID = 48


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """Views to fit to and to test on.

    Attributes:
      train: all views to fit to, on the host.
      test: views to test on; as many as there are `test_names`.
      names: of the views to fit to.
      test_names: of the views to test on.
      frame: world = center + scale * normalised.
      truth: the mesh that was rendered, normalised; None for a capture.
      has_normals, has_colors: what the views show besides masks.
      notes: remarks for the log.
    """

    train: ViewTargets
    test: ViewTargets | None
    names: tuple[str, ...]
    test_names: tuple[str, ...]
    frame: Normalisation
    truth: Mesh | None
    has_normals: bool
    has_colors: bool
    notes: tuple[str, ...] = ()


def load_targets(config: MeshFitConfig) -> Targets:
    """Targets of a run.

    Raises:
      InputError: the data cannot be read, has no alpha, no views to fit to, or not what `--target` needs.
    """
    path = pathlib.Path(config.data)
    if config.data == "demo":
        return rendered_targets(demo_shape(), config)
    if path.suffix.lower() in _SUFFIXES:
        try:
            mesh = read_mesh(path)
        except (OSError, FormatError) as error:
            raise InputError(str(error)) from error
        return rendered_targets(mesh, config)
    if config.target not in ("masks", "colors"):
        raise InputError(f"--target={config.target}: captures have masks and colours; choose --target=colors or masks")
    return captured_targets(config)


def rendered_targets(mesh: Mesh, config: MeshFitConfig) -> Targets:
    """Renders views of a mesh from around: evenly spread ones to fit to, others to test on.

    A mesh without colours gets a smooth pattern of them. Normals are those of faces as their winding has them.
    """
    mesh = merge_vertices(mesh)  # torn along the seams of its texture it would have outlines there
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    frame = box_frame(vertices[np.unique(faces)])
    notes = ()
    local = ((vertices - frame.center) / frame.scale).astype(np.float32)
    mesh = dataclasses.replace(mesh, vertices=jnp.asarray(local))
    if not has_colors(mesh):
        mesh = dataclasses.replace(mesh, vertex_colors=jnp.asarray(pattern(local)))
        notes = ("the mesh has no colours: it is painted with a smooth pattern",)
    low, high = np.radians(min(config.elevation)), np.radians(max(config.elevation))
    radius = float(np.linalg.norm(local[np.unique(faces)], axis=1).max())
    distance = 1.04 * radius / np.sin(_FIELD_OF_VIEW / 2)
    made = []
    for count, turn in ((config.views, 0.0), (config.test_views, 0.5)):
        if not count:
            made.append(None)
            continue
        poses = fibonacci_hemisphere(count, distance, elevation_range=(low, high))
        views = [_camera(_turned(pose, turn * 2 * np.pi / 7), config.resolution) for pose in np.asarray(poses)]
        made.append(_render(mesh, views))
    return Targets(
        train=made[0],
        test=made[1],
        names=tuple(f"{i:03d}" for i in range(config.views)),
        test_names=tuple(f"test{i:03d}" for i in range(config.test_views)),
        frame=frame,
        truth=mesh,
        has_normals=True,
        has_colors=True,
        notes=notes,
    )


def captured_targets(config: MeshFitConfig) -> Targets:
    """Masks and colours of a capture whose images have alpha.

    Raises:
      InputError: as `load_capture`, or no alpha, images of different sizes, or outlines without a common point.
    """
    capture = load_capture(config.data, downscale=_downscale(config), allow_external_paths=config.allow_external_paths)
    if any(image.shape[-1] != 4 for image in capture.images):
        raise InputError(
            f"{config.data}: the images have no alpha channel, which says where the object is; "
            "cut it out (RGBA PNG files, as in Blender's sets), or fit the scene with fit_gaussians"
        )
    sizes = {image.shape for image in capture.images}
    if len(sizes) > 1:
        raise InputError(f"{config.data}: the images have {len(sizes)} different sizes; bring them to one")
    default = "" if capture.test_names else "8"
    train, test = split_holdout(
        capture.names, default if config.holdout is None else config.holdout, capture.test_names
    )
    first = normalisation(capture)
    inner = _object_frame(capture, first, [int(i) for i in train])
    frame = Normalisation(first.center + first.scale * inner.center, first.scale * inner.scale)
    views = [jax.tree.map(jnp.asarray, camera) for camera in cameras(capture, frame)]

    def stacked(chosen) -> ViewTargets | None:
        if not len(chosen):
            return None
        images = np.stack([capture.images[i] for i in chosen])
        alpha = images[..., 3]
        colors = np.rint(images[..., :3] * (alpha[..., None] / 255.0)).astype(np.uint8)
        nothing = np.zeros((*alpha.shape, 0))
        return on_the_host(
            alpha, nothing.astype(np.uint8), colors, nothing.astype(np.float32), [views[i] for i in chosen]
        )

    train_views = stacked(train)
    if train_views is None:
        raise InputError(f"{config.data}: no view is left to fit to")
    return Targets(
        train=train_views,
        test=stacked(test),
        names=tuple(capture.names[i] for i in train),
        test_names=tuple(capture.names[i] for i in test),
        frame=frame,
        truth=None,
        has_normals=False,
        has_colors=True,
        notes=capture.notes,
    )


def at_half_resolution(targets: ViewTargets) -> ViewTargets:
    """Every 2 x 2 pixels averaged; an odd last row or column is dropped."""
    height, width = (side // 2 for side in targets.masks.shape[1:3])

    def pooled(images):
        cut = images[:, : 2 * height, : 2 * width].astype(np.float32)
        return np.rint(cut.reshape(len(cut), height, 2, width, 2, *cut.shape[3:]).mean((2, 4))).astype(np.uint8)

    shallow = targets.depths[:, : 2 * height, : 2 * width]
    shallow = shallow.reshape(len(shallow), height, 2, width, 2, -1)
    depths: Any = np.where((shallow > 0).all((2, 4)), shallow.mean((2, 4)), 0).astype(np.float32)
    camera = targets.cameras
    scale = np.array([2 * width, 2 * height], np.float32) / np.array([width, height], np.float32)
    half = dataclasses.replace(
        camera, focal=camera.focal / scale, principal=camera.principal / scale, size=(height, width)
    )
    return ViewTargets(
        masks=pooled(targets.masks),
        normals=pooled(targets.normals),
        colors=pooled(targets.colors),
        depths=depths,
        cameras=half,
    )


def one_camera(targets: ViewTargets, index: int) -> Camera:
    """The camera of a view."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), targets.cameras)


def chosen_views(targets: ViewTargets, indices: list[int], *, normals: bool, colors: bool, depths: bool) -> ViewTargets:
    """Some views, and only those of their parts that take part in a loss."""
    picked = jax.tree.map(lambda leaf: leaf[np.asarray(indices)], targets)
    return dataclasses.replace(
        picked,
        normals=picked.normals if normals else picked.normals[..., :0],
        colors=picked.colors if colors else picked.colors[..., :0],
        depths=picked.depths if depths else picked.depths[..., :0],
    )


@jax.jit
def albedo_image(mesh: Mesh, camera: Camera) -> Float[Array, "h w 3"]:
    """Base colours without light, display-referred, over black: what targets, baking and errors are about."""
    return render_mesh(mesh, camera, light="none", supersampling=2).color


@jax.jit
def depth_image(mesh: Mesh, camera: Camera) -> Float[Array, "h w 1"]:
    """Camera z at the centres of pixels, 0 where empty."""
    return rasterize_mesh(mesh.vertices, mesh.faces, camera, antialias=False).depth[..., None]


def has_colors(mesh: Mesh) -> bool:
    """Whether a mesh says anything about its colours."""
    return mesh.vertex_colors is not None or (mesh.texture is not None and mesh.uv is not None)


def box_frame(points: Float[np.ndarray, "n 3"]) -> Normalisation:
    """Middle of the box around points, and its longest side."""
    low, high = points.min(0), points.max(0)
    return Normalisation((low + high) / 2, max(float((high - low).max()), 1e-12))


def pattern(vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """A smooth pattern of linear colours in space, for meshes that have none."""
    waves = np.array([[9.0, 2.0, -4.0], [-3.0, 8.0, 5.0], [4.0, -5.0, 7.0]])
    return (0.4 + 0.3 * np.sin(vertices @ waves.T)).astype(np.float32)


def _render(mesh: Mesh, views: list[Camera]) -> ViewTargets:
    """Mask and normals antialiased, colours supersampled; all as 8 bits, as files would hold them."""
    opposite = jnp.asarray(connectivity.opposite_vertices(np.asarray(mesh.faces)))
    masks, normals, colors, depths = [], [], [], []
    for camera in views:
        mask, normal = shape_image(mesh.vertices, mesh.faces, opposite, camera)
        masks.append(np.asarray(mask))
        normals.append(np.asarray(normal))
        colors.append(np.asarray(albedo_image(mesh, camera)))
        depths.append(np.asarray(depth_image(mesh, camera)))

    def bytes_of(images):
        return np.rint(np.clip(np.stack(images), 0.0, 1.0) * 255).astype(np.uint8)

    return on_the_host(bytes_of(masks), bytes_of(normals), bytes_of(colors), np.stack(depths), views)


def on_the_host(masks, normals, colors, depths, views) -> ViewTargets:
    """Targets of NumPy arrays, and of a camera a view."""
    return ViewTargets(
        masks=masks,
        normals=normals,
        colors=colors,
        depths=depths,
        cameras=jax.tree.map(np.asarray, stack_cameras(views)),
    )


def _camera(pose, resolution) -> Camera:
    focal = resolution / (2 * np.tan(_FIELD_OF_VIEW / 2))
    return Camera(
        jnp.asarray(pose, jnp.float32),
        jnp.full(2, focal, jnp.float32),
        jnp.full(2, resolution / 2, jnp.float32),
        (resolution, resolution),
    )


def _turned(camera_from_world, angle):
    """The camera carried round the world's vertical axis."""
    turn = np.eye(4)
    turn[[0, 0, 2, 2], [0, 2, 0, 2]] = np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
    return camera_from_world @ turn


def _downscale(config) -> int | None:
    capture = load_capture(config.data, downscale=None, allow_external_paths=config.allow_external_paths)
    longest = max(max(image.shape[:2]) for image in capture.images)
    return max(1, round(longest / config.resolution))


def _object_frame(capture, frame: Normalisation, train: list[int]) -> Normalisation:
    """The box around what all masks have in common, found on coarse grids; every view shows the whole object."""
    views = [jax.tree.map(jnp.asarray, camera) for camera in cameras(capture, frame)]
    masks = [capture.images[i][..., 3] / np.float32(255) for i in train]
    centers, focus = focus_point(views)
    half = float(np.linalg.norm(centers - focus, axis=1).max())
    box = np.stack([focus - half, focus + half])
    for _ in range(3):
        inside = np.asarray(carve(jnp.asarray(grid_points(box, _COARSE_GRID)), masks, [views[i] for i in train]))
        occupied = np.argwhere(inside > 0.05)
        if not len(occupied):
            raise InputError("the masks of the views have no point in common: are poses and alpha those of one object?")
        spacing = (box[1] - box[0]) / (_COARSE_GRID - 1)
        low, high = occupied.min(0) - 1, occupied.max(0) + 1
        box = np.stack([box[0] + low * spacing, box[0] + high * spacing])
    return box_frame(box)
