"""glTF materials, textures and samplers as Material records and arrays (glTF 2.0, 3.8 and 3.9)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from renderers.meshes.codecs import gltf_json
from renderers.meshes.codecs.external import read_uri
from renderers.meshes.codecs.gltf_accessors import Accessors
from renderers.meshes.codecs.gltf_json import Json
from renderers.meshes.codecs.images import decode_image, floats_from_bytes
from renderers.meshes.mesh import Material
from renderers.ply_header import Damaged

_WRAPS = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
_NEAREST = 9728
_KTX2_REMEDY = "KHR_texture_basisu (KTX2 images) is not supported: convert with `gltf-transform ktxdecompress in out`"
_HONOURED = {
    *("KHR_materials_emissive_strength", "KHR_materials_pbrSpecularGlossiness", "KHR_texture_transform"),
    "EXT_texture_webp",
}


@dataclasses.dataclass(frozen=True)
class Look:
    """What a primitive's material means: arrays, and how uv leads into them."""

    material: Material | None = None
    texture: Array | None = None
    uv_set: int = 0
    uv_transform: tuple[Any, ...] | None = None  # offset, rotation, scale of KHR_texture_transform
    wrap: tuple[str, str] = ("repeat", "repeat")
    filter: str = "linear"


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where a texture of a material comes from and how uv leads into it."""

    pixels: np.ndarray
    uv_set: int
    uv_transform: tuple[Any, ...] | None
    wrap: tuple[str, str]
    filter: str

    @property
    def mapping(self) -> tuple:
        return self.uv_set, self.uv_transform, self.wrap


class Materials:
    """Reads the materials of one document, each once, with notes on what is left out."""

    def __init__(self, document: Json, accessors: Accessors, folder, notes: list[str]):
        self._accessors, self._folder, self._notes = accessors, folder, notes
        self._materials = gltf_json.objects(document, "materials")
        self._textures = gltf_json.objects(document, "textures")
        self._images = gltf_json.objects(document, "images")
        self._samplers = gltf_json.objects(document, "samplers")
        self._num_views = len(gltf_json.objects(document, "bufferViews"))
        self._pixels: dict[int, np.ndarray] = {}
        self._arrays: dict[tuple, Array] = {}
        self._looks: dict[int, Look] = {}

    def __len__(self) -> int:
        return len(self._materials)

    def look(self, index: int | None) -> Look:
        """The material `index`; None is the default surface."""
        if index is None:
            return Look()
        if index not in self._looks:
            self._looks[index] = self._read(self._materials[index], f"material {index}")
        return self._looks[index]

    def _read(self, source: Json, what: str) -> Look:
        extensions = gltf_json.child(source, "extensions")
        for name in extensions.keys() - _HONOURED:
            self._notes.append(f"{what}: {name[:60]!r} is ignored")
        gloss = "KHR_materials_pbrSpecularGlossiness" in extensions
        pbr = self._from_gloss(extensions, what) if gloss else gltf_json.child(source, "pbrMetallicRoughness")
        slots = {
            "base": self._slot(pbr, "baseColorTexture"),
            "metallic_roughness": self._slot(pbr, "metallicRoughnessTexture"),
            "normal": self._slot(source, "normalTexture"),
            "occlusion": self._slot(source, "occlusionTexture"),
            "emissive": self._slot(source, "emissiveTexture"),
        }
        first = next((slot for slot in slots.values() if slot is not None), None)
        for name, slot in slots.items():
            if slot is not None and first is not None and slot.mapping != first.mapping:
                self._notes.append(f"{what}: its {name} texture is laid out by another uv map and is ignored")
                slots[name] = None
        material = self._record(source, pbr, extensions, slots)
        return Look(
            material=None if _is_default(material) else material,
            texture=self._array(slots["base"], None),
            uv_set=first.uv_set if first else 0,
            uv_transform=first.uv_transform if first else None,
            wrap=first.wrap if first else ("repeat", "repeat"),
            filter=first.filter if first else "linear",
        )

    def _record(self, source: Json, pbr: Json, extensions: Json, slots: dict[str, _Slot | None]) -> Material:
        mode = gltf_json.text(source, "alphaMode", "OPAQUE")
        if mode not in ("OPAQUE", "MASK", "BLEND"):
            raise Damaged(f"a material has the unknown alpha mode {mode[:20]!r}")
        strength = gltf_json.child(extensions, "KHR_materials_emissive_strength")
        emissive = gltf_json.numbers(source, "emissiveFactor", (0.0, 0.0, 0.0))
        normal, occlusion = gltf_json.child(source, "normalTexture"), gltf_json.child(source, "occlusionTexture")
        return Material(
            base_color=jnp.asarray(gltf_json.numbers(pbr, "baseColorFactor", (1.0, 1.0, 1.0, 1.0))),
            metallic=jnp.asarray(gltf_json.number(pbr, "metallicFactor", 1.0)),
            roughness=jnp.asarray(gltf_json.number(pbr, "roughnessFactor", 1.0)),
            emissive=jnp.asarray(emissive * gltf_json.number(strength, "emissiveStrength", 1.0)),
            metallic_roughness_texture=self._array(slots["metallic_roughness"], 3),
            normal_texture=self._array(slots["normal"], 3),
            occlusion_texture=self._array(slots["occlusion"], 1),
            emissive_texture=self._array(slots["emissive"], 3),
            normal_scale=jnp.asarray(gltf_json.number(normal, "scale", 1.0)),
            occlusion_strength=jnp.asarray(gltf_json.number(occlusion, "strength", 1.0)),
            alpha_cutoff=jnp.asarray(gltf_json.number(source, "alphaCutoff", 0.5)),
            alpha_mode=mode,
            double_sided=gltf_json.flag(source, "doubleSided"),
            name=gltf_json.text(source, "name"),
        )

    def _from_gloss(self, extensions: Json, what: str) -> Json:
        """The metallic-roughness surface nearest to a specular-glossiness one whose specular colour is dielectric."""
        gloss = gltf_json.child(extensions, "KHR_materials_pbrSpecularGlossiness")
        self._notes.append(f"{what}: specular-glossiness is read as diffuse colour and roughness; specular is ignored")
        pbr = {"metallicFactor": 0.0, "roughnessFactor": 1.0 - float(gltf_json.number(gloss, "glossinessFactor", 1.0))}
        renamed = {"diffuseFactor": "baseColorFactor", "diffuseTexture": "baseColorTexture"}
        return pbr | {new: gloss[old] for old, new in renamed.items() if old in gloss}

    def _slot(self, owner: Json, key: str) -> _Slot | None:
        if key not in owner:
            return None
        info = gltf_json.child(owner, key)
        texture = self._textures[gltf_json.integer(info, "index", None, 0, len(self._textures) - 1)]
        uv_set = gltf_json.integer(info, "texCoord", 0, 0, 100)
        transform = None
        extension = gltf_json.child(gltf_json.child(info, "extensions"), "KHR_texture_transform")
        if extension:
            uv_set = gltf_json.integer(extension, "texCoord", uv_set, 0, 100)
            transform = (
                *gltf_json.numbers(extension, "offset", (0.0, 0.0)).tolist(),
                float(gltf_json.number(extension, "rotation", 0.0)),
                *gltf_json.numbers(extension, "scale", (1.0, 1.0)).tolist(),
            )
        sampler_index = gltf_json.index(texture, "sampler", len(self._samplers))
        sampler = {} if sampler_index is None else self._samplers[sampler_index]
        wraps = [gltf_json.integer(sampler, name, 10497) for name in ("wrapS", "wrapT")]
        if not set(wraps) <= set(_WRAPS):
            raise Damaged(f"a sampler has the unknown wrap modes {wraps}")
        nearest = gltf_json.integer(sampler, "magFilter", 9729) == _NEAREST
        wrap = (_WRAPS[wraps[0]], _WRAPS[wraps[1]])
        pixels = self._image(self._source(texture))
        return _Slot(pixels, uv_set, transform, wrap, "nearest" if nearest else "linear")

    def _source(self, texture: Json) -> int:
        extensions = gltf_json.child(texture, "extensions")
        webp = gltf_json.index(gltf_json.child(extensions, "EXT_texture_webp"), "source", len(self._images))
        source = gltf_json.index(texture, "source", len(self._images)) if webp is None else webp
        if source is None:
            raise Damaged(_KTX2_REMEDY if "KHR_texture_basisu" in extensions else "a texture has no image")
        return source

    def _image(self, index: int) -> np.ndarray:
        if index not in self._pixels:
            image = self._images[index]
            if gltf_json.text(image, "mimeType") == "image/ktx2":
                raise Damaged(_KTX2_REMEDY)
            view = gltf_json.index(image, "bufferView", self._num_views)
            if view is not None:
                content = bytes(self._accessors.view(view))
            else:
                content = read_uri(self._folder, gltf_json.text(image, "uri"))
            self._pixels[index] = decode_image(content, f"image {index}")
        return self._pixels[index]

    def _array(self, slot: _Slot | None, channels: int | None) -> Array | None:
        if slot is None:
            return None
        key = (id(slot.pixels), channels)
        if key not in self._arrays:
            self._arrays[key] = jnp.asarray(floats_from_bytes(slot.pixels[:, :, :channels]))
        return self._arrays[key]


def _is_default(material: Material) -> bool:
    """Whether a material says no more than its absence: white, rough, not metallic, without textures and name."""
    textures = ("metallic_roughness_texture", "normal_texture", "occlusion_texture", "emissive_texture")
    return (
        all(getattr(material, name) is None for name in textures)
        and bool((np.asarray(material.base_color) == 1).all())
        and not np.asarray(material.emissive).any()
        and (float(material.metallic), float(material.roughness)) == (0.0, 1.0)
        and (material.alpha_mode, material.double_sided, material.name) == ("OPAQUE", False, "")
    )
