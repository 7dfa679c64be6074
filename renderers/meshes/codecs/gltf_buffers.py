"""Accumulates the binary chunk of a .glb: arrays as accessors and files as views, each distinct one once."""

import numpy as np

from renderers.meshes.codecs.gltf_json import Json

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"f4": 5126, "u1": 5121, "u2": 5123, "u4": 5125}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Buffers:
    """The growing binary chunk, with the accessors and views into it."""

    def __init__(self) -> None:
        self.accessors: list[Json] = []
        self.views: list[Json] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._known_views: dict[tuple[bytes, int | None], int] = {}
        self._known_accessors: dict[tuple, int] = {}

    def view(self, content: bytes, target: int | None = None) -> int:
        """Index of a buffer view with this content, 4-byte aligned."""
        key = (content, target)
        if key not in self._known_views:
            self.views.append({"buffer": 0, "byteOffset": self._size, "byteLength": len(content)})
            if target is not None:
                self.views[-1]["target"] = target
            padded = content + bytes(-len(content) % 4)
            self._chunks.append(padded)
            self._size += len(padded)
            self._known_views[key] = len(self.views) - 1
        return self._known_views[key]

    def accessor(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Index of an accessor for [count] or [count width] numbers, float32 or unsigned; `bounds` adds min and max."""
        values = np.ascontiguousarray(values)
        rows = values.reshape(len(values), -1)
        row = values.dtype.itemsize * rows.shape[1]
        if row % 4 and target == ARRAY_BUFFER:
            raise AssertionError("rows of vertex attributes are multiples of 4 bytes")
        view = self.view(values.astype(values.dtype.newbyteorder("<")).tobytes(), target)
        key = (view, values.dtype.str, rows.shape, bounds)
        if key not in self._known_accessors:
            accessor: Json = {"bufferView": view, "componentType": _COMPONENTS[values.dtype.str[1:]]}
            accessor |= {"count": len(rows), "type": _TYPES[rows.shape[1]]}
            if bounds:
                accessor |= {"max": rows.max(axis=0).tolist(), "min": rows.min(axis=0).tolist()}
            self.accessors.append(accessor)
            self._known_accessors[key] = len(self.accessors) - 1
        return self._known_accessors[key]

    def content(self) -> bytes:
        """The binary chunk."""
        return b"".join(self._chunks)
