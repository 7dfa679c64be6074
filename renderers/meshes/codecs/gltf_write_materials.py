"""Material records and textures as glTF materials, textures, samplers and PNG images."""

import numpy as np

from renderers.meshes.codecs.gltf_buffers import Buffers
from renderers.meshes.codecs.gltf_json import Json
from renderers.meshes.codecs.images import bytes_from_floats, encode_png
from renderers.meshes.mesh import Material, plain_material
from renderers.meshes.scene import Part

_WRAPS = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
_FILTERS = {"linear": (9729, 9987), "nearest": (9728, 9984)}


def plain(values) -> list[float] | float:
    """JSON numbers that read back as the same float32, no longer than they need to be."""
    values = np.asarray(values, np.float32)
    return float(str(values)) if values.ndim == 0 else [float(str(value)) for value in values]


class MaterialWriter:
    """Collects the materials of a scene, each distinct one once."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self.materials: list[Json] = []
        self.textures: list[Json] = []
        self.samplers: list[Json] = []
        self.images: list[Json] = []
        self.extensions: set[str] = set()
        self._encoded: dict[int, bytes] = {}
        self._kept: list = []  # arrays whose id is a key above stay alive

    def index(self, part: Part) -> int:
        """Index of the part's material."""
        mesh, has_uv = part.mesh, part.mesh.uv is not None
        material = mesh.material or plain_material()
        pbr: Json = {}
        if not _is(material.base_color, 1):
            pbr["baseColorFactor"] = plain(material.base_color)
        pbr |= {"metallicFactor": plain(material.metallic), "roughnessFactor": plain(material.roughness)}
        written: Json = {"name": material.name} if material.name else {}
        if mesh.texture is not None and has_uv:
            pbr["baseColorTexture"] = {"index": self._texture(mesh.texture, part)}
        if has_uv:
            self._add_textures(material, pbr, written, part)
        written["pbrMetallicRoughness"] = pbr
        self._add_emission(material, written)
        if material.alpha_mode != "OPAQUE":
            written["alphaMode"] = material.alpha_mode
            if material.alpha_mode == "MASK":
                written["alphaCutoff"] = plain(material.alpha_cutoff)
        if material.double_sided:
            written["doubleSided"] = True
        return _place(self.materials, written)

    def _add_textures(self, material: Material, pbr: Json, written: Json, part: Part) -> None:
        rough_metal, occlusion = material.metallic_roughness_texture, material.occlusion_texture
        packed = rough_metal if rough_metal is not None and _holds(rough_metal, occlusion) else None
        if rough_metal is not None:
            pbr["metallicRoughnessTexture"] = {"index": self._texture(rough_metal, part)}
        if material.normal_texture is not None:
            normal: Json = {"index": self._texture(material.normal_texture, part)}
            written["normalTexture"] = normal
            if float(material.normal_scale) != 1:
                normal["scale"] = plain(material.normal_scale)
        if occlusion is not None:
            source = occlusion if packed is None else packed
            shade: Json = {"index": self._texture(source, part)}
            written["occlusionTexture"] = shade
            if float(material.occlusion_strength) != 1:
                shade["strength"] = plain(material.occlusion_strength)
        if material.emissive_texture is not None:
            written["emissiveTexture"] = {"index": self._texture(material.emissive_texture, part)}

    def _add_emission(self, material: Material, written: Json) -> None:
        emissive = np.asarray(material.emissive, np.float32)
        strength = emissive.max()
        if strength > 1:
            written["extensions"] = {"KHR_materials_emissive_strength": {"emissiveStrength": plain(strength)}}
            self.extensions.add("KHR_materials_emissive_strength")
            emissive = emissive / strength
        if emissive.any():
            written["emissiveFactor"] = plain(emissive)

    def _texture(self, values, part: Part) -> int:
        magnify, minify = _FILTERS[part.filter]
        wrap = (_WRAPS[part.wrap[0]], _WRAPS[part.wrap[1]])
        sampler = {"magFilter": magnify, "minFilter": minify, "wrapS": wrap[0], "wrapT": wrap[1]}
        if id(values) not in self._encoded:
            self._kept.append(values)
            self._encoded[id(values)] = encode_png(bytes_from_floats(np.asarray(values)))
        view = self._buffers.view(self._encoded[id(values)])
        image = _place(self.images, {"bufferView": view, "mimeType": "image/png"})
        return _place(self.textures, {"sampler": _place(self.samplers, sampler), "source": image})


def _place(items: list[Json], item: Json) -> int:
    """Index of the item in the list, at whose end it is put if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)


def _is(values, number: int) -> bool:
    return bool((np.asarray(values) == number).all())


def _holds(rough_metal, occlusion) -> bool:
    """Whether the red channel of one texture is the other, so that one image serves for both."""
    if occlusion is None or rough_metal.shape[:2] != occlusion.shape[:2]:
        return False
    return np.array_equal(
        bytes_from_floats(np.asarray(rough_metal[:, :, :1])), bytes_from_floats(np.asarray(occlusion))
    )
