"""Several materials as one: their textures side by side in an atlas, their factors baked into it. Runs on the host.

A surface without textures becomes a small patch of its colour. A textured one gets a region of all texels that its uv
reach. Faces are first moved by whole periods of a repeating texture, unless that takes more room, so that a face across
a border finds the texels it needs beyond it. A region that would hold more than 64 periods becomes the texture's mean.
Around each region are the texels beyond its border, as bilinear sampling needs them.
"""

import dataclasses
import math
import typing
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from renderers.meshes.mesh import Material, plain_material

MARGIN = 4
"""Texels around each region, so that bilinear sampling, also two mip levels up, stays inside."""

_PATCH = 4
_MAX_PERIODS = 64  # of a texture along one axis in a region, before it is replaced by its mean


class Surface(NamedTuple):
    """One surface to be combined: uv (v up) with a row of indices a face, and what they lead into."""

    uv: Float[np.ndarray, "t 2"] | None
    uv_faces: Int[np.ndarray, "f 3"]
    texture: Float[Array, "h w c"] | None
    material: Material | None
    wrap: tuple[str, str] = ("repeat", "repeat")


class Combined(NamedTuple):
    """All surfaces with one material; `uv_faces` in the order of the surfaces."""

    uv: Float[np.ndarray, "t 2"] | None
    uv_faces: Int[np.ndarray, "f 3"] | None
    texture: Float[Array, "h w c"] | None
    material: Material | None


@dataclasses.dataclass(frozen=True)
@typing.no_type_check
class _Region:
    """A rectangle of the atlas: which texels of the unwrapped layers it shows, rows counted downwards."""

    layers: dict[str, np.ndarray]
    origin: tuple[int, int]  # row, column of the region's first texel in the unwrapped texture
    size: tuple[int, int]
    uv: np.ndarray | None  # in texels of the unwrapped texture, rows down; None: the middle of a patch
    uv_faces: np.ndarray | None
    wrap: tuple[str, str]


def combined(surfaces: list[Surface], *, max_texels: int = 1 << 26) -> Combined:
    """One uv map, one set of textures and one material for all surfaces.

    Args:
        surfaces: at least one.
        max_texels: of each texture of the atlas; the surfaces' textures are halved until it fits.

    Returns:
        The first surface's look, untouched, if all share it and it repeats; otherwise an atlas of the base colour and,
        where surfaces differ in them or have textures of them, of metallic-roughness, normals, occlusion and emission.
        Alpha mode is BLEND if any surface's is, else MASK if any; opaque surfaces get an alpha of one.
    """
    if _same_look(surfaces):
        return _untouched(surfaces)
    materials = [surface.material or plain_material() for surface in surfaces]
    names = _layer_names(surfaces, materials)
    mode = next((m for m in ("BLEND", "MASK") if any(material.alpha_mode == m for material in materials)), "OPAQUE")
    cache: dict[tuple, dict[str, np.ndarray]] = {}
    for halvings in range(16):
        regions = [
            _region(surface, _layers(surface, material, names, mode, halvings, cache))
            for surface, material in zip(surfaces, materials, strict=True)
        ]
        shared = {_identity(region): region for region in regions}
        places, size = _packed([region.size for region in shared.values()])
        if size[0] * size[1] <= max_texels:
            break
    corner = dict(zip(shared, places, strict=True))
    atlas = _painted(shared, corner, size, names)
    uv, uv_faces = _mapped(regions, corner, size, [surface.uv_faces for surface in surfaces])
    texture = jnp.asarray(atlas.pop("base")[:, :, : 3 if mode == "OPAQUE" else 4])
    return Combined(uv, uv_faces, texture, _material(materials, atlas, mode))


def _same_look(surfaces: list[Surface]) -> bool:
    first = surfaces[0]
    if any(surface.texture is not first.texture or surface.material is not first.material for surface in surfaces):
        plain = all(surface.texture is None and not _textures(surface.material) for surface in surfaces)
        return plain and all(_equal(surface.material, first.material) for surface in surfaces)
    textured = first.texture is not None or bool(_textures(first.material))
    return not textured or all(s.uv is not None and s.wrap == ("repeat", "repeat") for s in surfaces)


def _equal(a: Material | None, b: Material | None) -> bool:
    a, b = a or plain_material(), b or plain_material()
    names = [field.name for field in dataclasses.fields(Material) if not field.name.endswith("texture")]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names if name != "name")


def _untouched(surfaces: list[Surface]) -> Combined:
    first = surfaces[0]
    if any(surface.uv is None for surface in surfaces):
        return Combined(None, None, None, first.material)
    starts = np.cumsum([0] + [len(typing.cast(np.ndarray, surface.uv)) for surface in surfaces])
    faces = [surface.uv_faces + start for surface, start in zip(surfaces, starts, strict=False)]
    uv = np.concatenate([typing.cast(np.ndarray, surface.uv) for surface in surfaces])
    return Combined(uv, np.concatenate(faces).astype(np.int32), first.texture, first.material)


def _textures(material: Material | None) -> dict[str, Array]:
    names = {
        "metallic_roughness": "metallic_roughness_texture", "normal": "normal_texture",
        "occlusion": "occlusion_texture", "emissive": "emissive_texture",
    }  # fmt: skip
    found = {} if material is None else {name: getattr(material, field) for name, field in names.items()}
    return {name: texture for name, texture in found.items() if texture is not None}


def _layer_names(surfaces: list[Surface], materials: list[Material]) -> list[str]:
    names = {"base"} | {name for material in materials for name in _textures(material)}
    if any((float(m.metallic), float(m.roughness)) != (float(materials[0].metallic), float(materials[0].roughness))
           for m in materials):  # fmt: skip
        names.add("metallic_roughness")
    if any(not np.array_equal(m.emissive, materials[0].emissive) for m in materials):
        names.add("emissive")
    return sorted(names)


def _layers(surface: Surface, material: Material, names, mode: str, halvings: int, cache) -> dict[str, np.ndarray]:
    """The wanted layers of a surface with factors baked in, all of one size, a single texel without textures."""
    key = (id(surface.texture), id(surface.material), surface.uv is None, surface.wrap, halvings)
    if key in cache:
        return cache[key]
    sources = {name: np.asarray(texture) for name, texture in _textures(material).items()}
    if surface.texture is not None:
        sources["base"] = np.asarray(surface.texture)
    if surface.uv is None:
        sources = {}
    for _ in range(halvings):
        sources = {name: _halved(source) for name, source in sources.items()}
    height, width = (max([source.shape[axis] for source in sources.values()], default=1) for axis in (0, 1))
    size = (height, width)
    sources = {name: _resized(source, size, surface.wrap) for name, source in sources.items()}
    ones = np.ones((*size, 4), np.float32)
    layers = {}
    for name in names:
        source = sources.get(name)
        layers[name] = _baked(name, source, ones, material, mode)
    cache[key] = layers
    return layers


def _baked(name: str, source: np.ndarray | None, ones: np.ndarray, material: Material, mode: str) -> np.ndarray:
    if name == "base":
        source = ones[:, :, :3] if source is None else source
        rgb = srgb_from_linear(linear_from_srgb(source[:, :, :3]) * np.asarray(material.base_color)[:3])
        alpha = source[:, :, 3:] if source.shape[2] == 4 else ones[:, :, :1]
        return np.concatenate([_kept(source, material, rgb), _alpha(alpha, material, mode)], axis=2)
    if name == "metallic_roughness":
        source = ones[:, :, :3] if source is None else source
        return source[:, :, :3] * np.array([1, material.roughness, material.metallic], np.float32)
    if name == "emissive":
        source = ones[:, :, :3] if source is None else source
        return linear_from_srgb(source[:, :, :3]) * np.asarray(material.emissive)
    if name == "occlusion":
        source = ones[:, :, :1] if source is None else source
        return 1 + np.float32(material.occlusion_strength) * (source[:, :, :1] - 1)
    if source is None:
        return ones[:, :, :3] * np.array([0.5, 0.5, 1], np.float32)
    if float(material.normal_scale) == 1:
        return source
    normal = (2 * source - 1) * np.array([material.normal_scale, material.normal_scale, 1], np.float32)
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    return 0.5 + 0.5 * normal / np.where(length > 0, length, 1)


def _kept(source: np.ndarray, material: Material, rgb: np.ndarray) -> np.ndarray:
    """Texels themselves where the factor is one: the way to linear and back would round them."""
    return source[:, :, :3] if bool((np.asarray(material.base_color)[:3] == 1).all()) else rgb


def _alpha(alpha: np.ndarray, material: Material, mode: str) -> np.ndarray:
    if material.alpha_mode == "OPAQUE":
        return np.ones_like(alpha)
    alpha = alpha * np.float32(material.base_color[3])
    if material.alpha_mode == "BLEND":
        return alpha
    cutoff = float(material.alpha_cutoff)
    if mode == "BLEND":
        return (alpha >= cutoff).astype(np.float32)
    below = 0.5 * alpha / max(cutoff, 1e-6)  # the cutoff of the atlas is one half
    above = 0.5 + 0.5 * (alpha - cutoff) / max(1 - cutoff, 1e-6)
    return np.where(alpha < cutoff, below, above).clip(0, 1).astype(np.float32)


def linear_from_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light from display-referred values (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def srgb_from_linear(values: np.ndarray) -> np.ndarray:
    """Display-referred values from linear light (IEC 61966-2-1)."""
    values = np.asarray(values, np.float32)
    high = 1.055 * np.maximum(values, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(values <= 0.0031308, values * 12.92, high).astype(np.float32)


def _halved(texture: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 texels; an odd last row or column is doubled."""
    pads = [(0, size % 2 if size > 1 else 0) for size in texture.shape[:2]]
    texture = np.pad(texture, (*pads, (0, 0)), mode="edge")
    for axis in (0, 1):
        if texture.shape[axis] > 1:
            even, odd = (np.take(texture, range(k, texture.shape[axis], 2), axis) for k in (0, 1))
            texture = 0.5 * (even + odd)
    return texture


def _resized(texture: np.ndarray, size: tuple[int, int], wrap: tuple[str, str]) -> np.ndarray:
    """Bilinear samples at the texel centres of another size."""
    for axis, kind in ((0, wrap[1]), (1, wrap[0])):
        if texture.shape[axis] != size[axis]:
            at = (np.arange(size[axis]) + 0.5) * (texture.shape[axis] / size[axis]) - 0.5
            low = np.floor(at).astype(int)
            share = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            a, b = (np.take(texture, wrapped(low + k, texture.shape[axis], kind), axis) for k in (0, 1))
            texture = (1 - share) * a + share * b
    return texture


def wrapped(index: np.ndarray, length: int, kind: str) -> np.ndarray:
    """Texel indices inside [0, length) for any integers."""
    if kind == "clamp":
        return np.clip(index, 0, length - 1)
    if kind == "mirror":
        index = index % (2 * length)
        return np.minimum(index, 2 * length - 1 - index)
    return index % length


def _region(surface: Surface, layers: dict[str, np.ndarray]) -> _Region:
    height, width = layers["base"].shape[:2]
    textured = surface.texture is not None or bool(_textures(surface.material))
    patch = _Region(layers, (0, 0), (_PATCH, _PATCH), None, None, ("repeat", "repeat"))
    if surface.uv is None or not textured or len(surface.uv_faces) == 0:
        return patch
    corners = surface.uv.astype(np.float64)[surface.uv_faces]
    corners[:, :, 1] = 1 - corners[:, :, 1]  # rows count downwards
    for axis, kind in enumerate(surface.wrap):
        along = corners[:, :, axis]
        if kind == "clamp":
            corners[:, :, axis] = along.clip(-_MAX_PERIODS, _MAX_PERIODS)
            continue
        period = 2 if kind == "mirror" else 1
        together = along - period * np.floor(along.min() / period)
        apart = along - period * np.floor(along.min(axis=1) / period)[:, None]
        # a map that merely begins before the border would take twice the room if its first faces were moved alone
        corners[:, :, axis] = apart if np.ptp(apart) < np.ptp(together) else together
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    if (high - low).max() > _MAX_PERIODS:
        means = {name: layer.mean(axis=(0, 1), keepdims=True) for name, layer in layers.items()}
        return dataclasses.replace(patch, layers=means)
    texels = corners * (width, height)
    first = np.floor(low * (width, height)).astype(int)
    last = np.maximum(np.ceil(high * (width, height)).astype(int), first + 1)
    rows, inverse = np.unique(texels.reshape(-1, 2), axis=0, return_inverse=True)
    size = (int(last[1] - first[1]), int(last[0] - first[0]))
    return _Region(layers, (int(first[1]), int(first[0])), size, rows, inverse.reshape(-1, 3), surface.wrap)


def _identity(region: _Region) -> tuple:
    return id(region.layers), region.origin, region.size, region.wrap


def _packed(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Rows and columns for rectangles on shelves, tallest first, and the size of the atlas, in multiples of 4."""
    padded = [(h + 2 * MARGIN, w + 2 * MARGIN) for h, w in sizes]
    area = sum(h * w for h, w in padded)
    width = 4 * math.ceil(max(max(w for _, w in padded), math.sqrt(area)) / 4)
    places, row, column, shelf = [(0, 0)] * len(sizes), 0, 0, 0
    for i in sorted(range(len(sizes)), key=lambda i: (-padded[i][0], -padded[i][1], i)):
        if column + padded[i][1] > width:
            row, column, shelf = row + shelf, 0, 0
        places[i] = (row + MARGIN, column + MARGIN)
        column, shelf = column + padded[i][1], max(shelf, padded[i][0])
    return places, (4 * math.ceil((row + shelf) / 4), width)


def _painted(shared: dict, corner: dict, size: tuple[int, int], names: list[str]) -> dict[str, np.ndarray]:
    first = next(iter(shared.values())).layers
    atlas = {name: np.zeros((*size, first[name].shape[2]), np.float32) for name in names}
    for identity, region in shared.items():
        row, column = corner[identity]
        height, width = region.size[0] + 2 * MARGIN, region.size[1] + 2 * MARGIN
        for name, layer in region.layers.items():
            down = wrapped(np.arange(height) - MARGIN + region.origin[0], layer.shape[0], region.wrap[1])
            right = wrapped(np.arange(width) - MARGIN + region.origin[1], layer.shape[1], region.wrap[0])
            target = atlas[name][row - MARGIN : row - MARGIN + height, column - MARGIN : column - MARGIN + width]
            target[...] = layer[down[:, None], right]
    return atlas


def _mapped(regions: list[_Region], corner: dict, size, faces: list) -> tuple[np.ndarray, np.ndarray]:
    uv, uv_faces, start = [], [], 0
    for region, face in zip(regions, faces, strict=True):
        row, column = corner[_identity(region)]
        if region.uv is None or region.uv_faces is None:
            texels = np.array([[column + region.size[1] / 2, row + region.size[0] / 2]])
            indices = np.zeros((len(face), 3), np.int64)
        else:
            texels, indices = region.uv + (column - region.origin[1], row - region.origin[0]), region.uv_faces
        uv.append(np.stack([texels[:, 0] / size[1], 1 - texels[:, 1] / size[0]], axis=1))
        uv_faces.append(indices + start)
        start += len(texels)
    return np.concatenate(uv).astype(np.float32), np.concatenate(uv_faces).astype(np.int32)


def _material(materials: list[Material], atlas: dict[str, np.ndarray], mode: str) -> Material:
    first = materials[0]
    emissive, strength = np.asarray(first.emissive), np.float32(0)
    if "emissive" in atlas:
        strength = max(np.float32(1), atlas["emissive"].max())
        emissive = np.full(3, strength, np.float32)
    layer = {name: jnp.asarray(texture) for name, texture in atlas.items()}
    one = jnp.float32(1)
    mixed = "metallic_roughness" in atlas
    return Material(
        base_color=jnp.ones(4, jnp.float32),
        metallic=one if mixed else first.metallic,
        roughness=one if mixed else first.roughness,
        emissive=jnp.asarray(emissive),
        metallic_roughness_texture=layer.get("metallic_roughness"),
        normal_texture=layer.get("normal"),
        occlusion_texture=layer.get("occlusion"),
        emissive_texture=jnp.asarray(srgb_from_linear(atlas["emissive"] / strength)) if "emissive" in atlas else None,
        normal_scale=one,
        occlusion_strength=one,
        alpha_cutoff=jnp.float32(0.5),
        alpha_mode=mode,  # type: ignore[arg-type]
        double_sided=any(material.double_sided for material in materials),
    )
