"""glTF buffers, views and accessors as NumPy arrays; every range is checked before memory is taken (glTF 2.0, 3.6)."""

import pathlib

import numpy as np

from renderers.meshes.codecs import gltf_json
from renderers.meshes.codecs.external import read_uri
from renderers.meshes.codecs.gltf_json import Json
from renderers.ply_header import Damaged

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
"""NumPy types by glTF component type."""

WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
"""Numbers an element, by glTF accessor type."""

_SCALES = {5120: 127.0, 5121: 255.0, 5122: 32767.0, 5123: 65535.0}
# accessors without data are zeros for as many elements as they claim: about as many as the file could hold
_FREE_ZEROS = 1 << 16


class Accessors:
    """Reads the arrays of one glTF document, each once."""

    def __init__(self, document: Json, binary: bytes | None, folder: pathlib.Path | None):
        self._binary, self._folder = binary, folder
        self._buffers = gltf_json.objects(document, "buffers")
        self._views = gltf_json.objects(document, "bufferViews")
        self._accessors = gltf_json.objects(document, "accessors")
        self._contents: dict[int, bytes] = {}
        self._arrays: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._accessors)

    def view(self, index: int) -> memoryview:
        """The bytes of a buffer view."""
        view = self._views[index]
        buffer = self._buffer(gltf_json.integer(view, "buffer", None, 0, len(self._buffers) - 1))
        offset = gltf_json.integer(view, "byteOffset", 0)
        length = gltf_json.integer(view, "byteLength", None, 1)
        if offset + length > len(buffer):
            raise Damaged(f"buffer view {index} ends at byte {offset + length} of a buffer of {len(buffer)}")
        return memoryview(buffer)[offset : offset + length]

    def has_data(self, index: int) -> bool:
        """Whether the accessor has a buffer view; without one it is zeros, or its data is somewhere else."""
        return "bufferView" in self._accessors[index] or "sparse" in self._accessors[index]

    def floats(self, index: int, types: tuple[str, ...], finite: bool = True) -> np.ndarray:
        """Accessor `index` as float32 [count width], normalised integers in [-1, 1] or [0, 1].

        Args:
            index: the accessor.
            types: the allowed accessor types.
            finite: whether NaN and infinity are refused.
        """
        values = self._read(index, types)
        accessor = self._accessors[index]
        if values.dtype != np.float32:
            scale = _SCALES.get(accessor["componentType"]) if gltf_json.flag(accessor, "normalized") else None
            values = values.astype(np.float32)
            values = values if scale is None else np.maximum(values / np.float32(scale), np.float32(-1))
        bad = ~np.isfinite(values).all(axis=1)
        if finite and bad.any():
            raise Damaged(f"element {int(np.argmax(bad))} of accessor {index} is not finite")
        return values

    def integers(self, index: int, types: tuple[str, ...]) -> np.ndarray:
        """Accessor `index` as unsigned integers [count width]."""
        values = self._read(index, types)
        if values.dtype.kind != "u":
            raise Damaged(f"accessor {index} should hold unsigned integers")
        return values

    def _read(self, index: int, types: tuple[str, ...]) -> np.ndarray:
        accessor = self._accessors[index]
        kind = gltf_json.text(accessor, "type")
        if kind not in types:
            raise Damaged(f"accessor {index} is of type {kind[:20]!r}, expected {' or '.join(types)}")
        if index not in self._arrays:
            component = gltf_json.integer(accessor, "componentType", None)
            if component not in COMPONENTS:
                raise Damaged(f"accessor {index} has the unknown component type {component}")
            self._arrays[index] = self._fresh(accessor, index, np.dtype(COMPONENTS[component]), WIDTHS[kind])
        return self._arrays[index]

    def _fresh(self, accessor: Json, index: int, dtype: np.dtype, width: int) -> np.ndarray:
        count = gltf_json.integer(accessor, "count", None, 1)
        offset = gltf_json.integer(accessor, "byteOffset", 0)
        view = gltf_json.index(accessor, "bufferView", len(self._views))
        if view is not None:
            values = self._strided(view, offset, count, dtype, width, f"accessor {index}")
        elif count <= _FREE_ZEROS + sum(map(len, self._contents.values())) + len(self._binary or b""):
            values = np.zeros((count, width), dtype)
        else:
            raise Damaged(f"accessor {index} claims {count} elements without data")
        if "sparse" in accessor:
            self._substitute(values, gltf_json.child(accessor, "sparse"), dtype, width, f"accessor {index}")
        return values

    def _strided(self, view: int, offset: int, count: int, dtype: np.dtype, width: int, what: str) -> np.ndarray:
        data = self.view(view)
        item = dtype.itemsize * width
        stride = gltf_json.integer(self._views[view], "byteStride", item, 1, 252)
        if stride < item and count > 1:
            raise Damaged(f"{what} has elements of {item} bytes at a stride of {stride}")
        end = offset + stride * (count - 1) + item
        if end > len(data):
            raise Damaged(f"{what} needs {end} bytes of a buffer view of {len(data)}")
        strided = np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))
        return strided.astype(dtype.newbyteorder("="))

    def _substitute(self, values: np.ndarray, sparse: Json, dtype: np.dtype, width: int, what: str) -> None:
        count = gltf_json.integer(sparse, "count", None, 1, len(values))
        where, what_values = gltf_json.child(sparse, "indices"), gltf_json.child(sparse, "values")
        component = gltf_json.integer(where, "componentType", None)
        if component not in (5121, 5123, 5125):
            raise Damaged(f"the sparse indices of {what} have component type {component}")
        rows = self._strided(
            gltf_json.integer(where, "bufferView", None, 0, len(self._views) - 1),
            gltf_json.integer(where, "byteOffset", 0),
            count, np.dtype(COMPONENTS[component]), 1, f"the sparse indices of {what}",
        )[:, 0]  # fmt: skip
        if rows.max() >= len(values):
            raise Damaged(f"sparse index {rows.max()} of {what} is past its {len(values)} elements")
        values[rows] = self._strided(
            gltf_json.integer(what_values, "bufferView", None, 0, len(self._views) - 1),
            gltf_json.integer(what_values, "byteOffset", 0),
            count, dtype, width, f"the sparse values of {what}",
        )  # fmt: skip

    def _buffer(self, index: int) -> bytes:
        if index not in self._contents:
            buffer = self._buffers[index]
            length = gltf_json.integer(buffer, "byteLength", None, 1)
            if "uri" in buffer:
                content = read_uri(self._folder, gltf_json.text(buffer, "uri"))
            elif index == 0 and self._binary is not None:
                content = self._binary
            else:
                raise Damaged(f"buffer {index} has no data")
            if len(content) < length:
                raise Damaged(f"buffer {index} promises {length} bytes, {len(content)} are there")
            self._contents[index] = content[:length] if len(content) > length else content
        return self._contents[index]
