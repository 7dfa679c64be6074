"""Wavefront .mtl files: materials with their images, as Material records.

Kd is taken as linear, as Blender writes it. `norm`, and `map_Bump` where the image is coloured, are normal maps; grey
bump maps (heights) are left out. Roughness is Pr, or that of a Blinn-Phong exponent Ns, (2 / (Ns + 2))^(1/4) (Walter et
al. 2007, microfacet models for refraction).
"""

import pathlib

import jax.numpy as jnp
import numpy as np

from renderers.meshes.codecs.external import read_optional
from renderers.meshes.codecs.gltf_materials import Look
from renderers.meshes.codecs.images import decode_image, floats_from_bytes
from renderers.meshes.mesh import Material
from renderers.ply_header import Damaged

_MAX_LINES = 1 << 20
_NUMBERS = {"Kd": 3, "Ke": 3, "Ns": 1, "Pr": 1, "Pm": 1, "d": 1, "Tr": 1}
_MAPS = {"map_kd": "base", "map_ke": "emissive", "map_pr": "roughness", "map_pm": "metallic", "map_d": "alpha",
         "norm": "normal", "map_bump": "bump", "bump": "bump", "map_ao": "occlusion"}  # fmt: skip
_OPTION_LENGTHS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2, "-bm": 1, "-clamp": 1, "-blendu": 1, "-blendv": 1, "-cc": 1,
                   "-imfchan": 1, "-texres": 1, "-type": 1, "-boost": 1, "-colorspace": 1}  # fmt: skip


def read_library(folder: pathlib.Path, name: str, notes: list[str]) -> dict[str, Look]:
    """Materials of an .mtl file by name; a missing file or image leaves a note.

    Raises:
        Damaged: if the name leads out of the folder, or a number or image is damaged.
    """
    text = read_optional(folder, name, notes)
    if text is None:
        return {}
    statements: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    lines = text.decode("utf-8", "replace").splitlines()
    if len(lines) > _MAX_LINES:
        raise Damaged(f"{name[:60]} has {len(lines)} lines")
    for line in lines:
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "newmtl":
            current = statements.setdefault(rest.strip(), {})
        elif rest.strip():
            current[keyword if keyword in _NUMBERS else keyword.lower()] = rest.strip()
    cache: dict[str, np.ndarray | None] = {}
    place = pathlib.PurePosixPath(name.replace("\\", "/")).parent
    return {key: _look(key, value, folder / place, notes, cache) for key, value in statements.items()}


def _number(statements: dict[str, str], key: str, default: float) -> float:
    return float(_triple(statements, key, (default,))[0])


def _triple(statements: dict[str, str], key: str, default: tuple[float, ...]) -> np.ndarray:
    words = statements.get(key, "").split()[: len(default)]
    if not words or words[0] in ("spectral", "xyz") or (key == "d" and words[0] == "-halo"):
        return np.array(default, np.float32)
    try:
        values = np.array([float(word) for word in words], np.float64)
    except ValueError:
        raise Damaged(f"its material library has {key} {' '.join(words)[:40]!r}") from None
    if not (np.abs(values) < 1e30).all():
        raise Damaged(f"its material library has a {key} that is not finite")
    return np.resize(values, len(default)).astype(np.float32)


def _look(name: str, statements: dict[str, str], folder: pathlib.Path, notes: list[str], cache: dict) -> Look:
    maps: dict[str, np.ndarray] = {}
    clamp = False
    for key, kind in _MAPS.items():
        if key in statements:
            file, options = _file_and_options(statements[key])
            clamp |= options.get("-clamp") == "on"
            if "-s" in options or "-o" in options:
                notes.append(f"material {name[:40]!r}: scale and offset of {key} are ignored")
            if file not in cache:
                content = read_optional(folder, file, notes)
                cache[file] = None if content is None else floats_from_bytes(decode_image(content, file[:60]))
            if cache[file] is not None:
                maps[kind] = cache[file]
    material, texture = _record(name, statements, maps, notes)
    wrap = ("clamp", "clamp") if clamp else ("repeat", "repeat")
    return Look(material=material, texture=None if texture is None else jnp.asarray(texture), wrap=wrap)


def _file_and_options(rest: str) -> tuple[str, dict[str, str]]:
    """File name (which may hold spaces) behind the options of a map statement."""
    words, options = rest.split(" "), {}
    while words and words[0] in _OPTION_LENGTHS:
        option, length = words.pop(0), 0
        while words and length < _OPTION_LENGTHS[option] and (length == 0 or _is_number(words[0])):
            options[option] = words.pop(0)
            length += 1
    return " ".join(words).strip(), options


def _is_number(word: str) -> bool:
    return word.lstrip("+-").replace(".", "", 1).replace("e-", "", 1).isdigit()


def _record(name: str, statements: dict[str, str], maps: dict[str, np.ndarray], notes: list[str]):
    color = _triple(statements, "Kd", (1.0, 1.0, 1.0)).clip(0, 1)
    # exporters leave black behind when an image takes over
    color = np.ones(3, np.float32) if "base" in maps and not color.any() else color
    alpha = _number(statements, "d", 1.0 - _number(statements, "Tr", 0.0) if "d" not in statements else 1.0)
    if "map_kd" in statements and "d" not in statements:
        alpha = 1.0  # programs disagree on whether Tr is transparency or its opposite
    texture = _with_alpha(maps.get("base"), maps.get("alpha"))
    shine = (2.0 / (max(_number(statements, "Ns", 0.0), 0.0) + 2.0)) ** 0.25
    if "bump" in maps and "normal" not in maps:
        if np.ptp(maps["bump"][:, :, :3], axis=2).any():
            maps["normal"] = maps["bump"]
        else:
            notes.append(f"material {name[:40]!r}: its bump map holds heights and is ignored")
    rough_metal = _metallic_roughness(maps.get("roughness"), maps.get("metallic"))
    emissive = _triple(statements, "Ke", (1.0,) * 3 if "emissive" in maps else (0.0,) * 3).clip(0, None)
    emissive = np.ones(3, np.float32) if "emissive" in maps and not emissive.any() else emissive
    see_through = alpha < 1 or (texture is not None and texture.shape[2] == 4 and bool((texture[:, :, 3] < 1).any()))

    def array(values: np.ndarray | None, channels: int):
        return None if values is None else jnp.asarray(values[:, :, :channels])

    material = Material(
        base_color=jnp.asarray(np.append(color, np.float32(np.clip(alpha, 0, 1)))),
        metallic=jnp.float32(np.clip(_number(statements, "Pm", 1.0 if "metallic" in maps else 0.0), 0, 1)),
        roughness=jnp.float32(np.clip(_number(statements, "Pr", 1.0 if "roughness" in maps else shine), 0, 1)),
        emissive=jnp.asarray(emissive),
        metallic_roughness_texture=array(rough_metal, 3),
        normal_texture=array(maps.get("normal"), 3),
        occlusion_texture=array(maps.get("occlusion"), 1),
        emissive_texture=array(maps.get("emissive"), 3),
        alpha_mode="BLEND" if see_through else "OPAQUE",
        name=name,
    )
    return material, texture


def _with_alpha(base: np.ndarray | None, alpha: np.ndarray | None) -> np.ndarray | None:
    if alpha is None:
        return base
    if base is None:
        return np.concatenate([np.ones((*alpha.shape[:2], 3), np.float32), alpha[:, :, :1]], axis=2)
    return np.concatenate([base[:, :, :3], _matched(alpha, base)[:, :, :1]], axis=2)


def _metallic_roughness(roughness: np.ndarray | None, metallic: np.ndarray | None) -> np.ndarray | None:
    if roughness is None and metallic is None:
        return None
    both = [texture for texture in (roughness, metallic) if texture is not None]
    size = max(both, key=lambda texture: texture.shape[0] * texture.shape[1])
    ones = np.ones(size.shape[:2], np.float32)
    green = ones if roughness is None else _matched(roughness, size)[:, :, 0]
    blue = ones if metallic is None else _matched(metallic, size)[:, :, 0]
    return np.stack([ones, green, blue], axis=2)


def _matched(texture: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The texture at the size of another, by the nearest texel."""
    rows, columns = (np.arange(like.shape[k]) * texture.shape[k] // like.shape[k] for k in (0, 1))
    return texture[rows[:, None], columns]
