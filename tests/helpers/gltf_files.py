"""glTF files made by hand, for readers, and checks of files that were written, without our own reader."""

import base64
import json
import struct

import numpy as np

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Builder:
    """Collects arrays of a glTF document with one triangle's worth of boilerplate."""

    def __init__(self) -> None:
        self.binary = b""
        self.document: dict = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": []}

    def view(self, content: bytes, **extra) -> int:
        self.binary += bytes(-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content), **extra}
        self.document["bufferViews"].append(view)
        self.binary += content
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values, kind: str, dtype: str = "<f4", **extra) -> int:
        values = np.asarray(values, dtype)
        component = next(code for code, name in COMPONENTS.items() if name == dtype)
        count = values.size // WIDTHS[kind]
        view = self.view(values.tobytes())
        accessor = {"bufferView": view, "componentType": component, "count": count, "type": kind, **extra}
        self.document["accessors"].append(accessor)
        return len(self.document["accessors"]) - 1

    def show(self, attributes: dict, **primitive) -> None:
        """Makes a scene of one node with one mesh of one primitive."""
        self.document["meshes"] = [{"primitives": [{"attributes": attributes, **primitive}]}]
        self.document["nodes"] = [{"mesh": 0}]
        self.document["scenes"] = [{"nodes": [0]}]

    def glb(self) -> bytes:
        self.document["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + bytes(-len(self.binary) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def gltf(self) -> bytes:
        """The same as text, its buffer in a data URI."""
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        self.document["buffers"] = [{"byteLength": len(self.binary), "uri": uri}]
        return json.dumps(self.document).encode()


def triangle() -> Builder:
    """One triangle in the plane z = 0."""
    builder = Builder()
    builder.show({"POSITION": builder.accessor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "VEC3")})
    return builder


def split(content: bytes) -> tuple[dict, bytes]:
    """JSON and binary chunk of a .glb, with every length and alignment of the container asserted."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<II", content, 12)
    assert kind == 0x4E4F534A and size % 4 == 0
    document = json.loads(content[20 : 20 + size])
    rest = content[20 + size :]
    binary_size, kind = struct.unpack_from("<II", rest)
    assert kind == 0x004E4942 and binary_size % 4 == 0 and len(rest) == 8 + binary_size
    return document, rest[8:]


def array(document: dict, binary: bytes, index: int) -> np.ndarray:
    """Accessor `index` [count width] of a file whose views are packed."""
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(binary)
    dtype, width = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[accessor["type"]]
    assert view["byteLength"] == accessor["count"] * width * dtype.itemsize
    return np.frombuffer(binary, dtype, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)


def assert_well_formed(content: bytes) -> None:
    """Asserts what the specification asks of accessors, indices, skins, animations and images."""
    document, binary = split(content)
    arrays = [array(document, binary, i) for i in range(len(document["accessors"]))]
    assert document["asset"]["version"] == "2.0" and "Galatea" in document["asset"]["generator"]
    assert document["buffers"] == [{"byteLength": len(binary)}]
    for accessor, values in zip(document["accessors"], arrays, strict=True):
        if "min" in accessor:
            assert np.array_equal(np.float32(accessor["min"]), values.min(axis=0))
            assert np.array_equal(np.float32(accessor["max"]), values.max(axis=0))
    for mesh in document["meshes"]:
        for primitive in mesh["primitives"]:
            columns = {name: arrays[index] for name, index in primitive["attributes"].items()}
            assert len({len(values) for values in columns.values()}) == 1
            indices = arrays[primitive["indices"]]
            restart = 0xFFFF if indices.dtype.itemsize == 2 else 0xFFFFFFFF
            assert indices.max() < min(len(columns["POSITION"]), restart)
            assert "min" in document["accessors"][primitive["attributes"]["POSITION"]]
            for name in columns.keys() & {"NORMAL", "TANGENT"}:
                np.testing.assert_allclose(np.linalg.norm(columns[name][:, :3], axis=1), 1, atol=5e-4)
            if "WEIGHTS_0" in columns:
                np.testing.assert_allclose(columns["WEIGHTS_0"].sum(axis=1), 1, atol=1e-6)
                assert (columns["JOINTS_0"][columns["WEIGHTS_0"] == 0] == 0).all()
    for skin in document.get("skins", []):
        assert len(arrays[skin["inverseBindMatrices"]]) == len(skin["joints"])
    for animation in document.get("animations", []):
        for sampler in animation["samplers"]:
            times = arrays[sampler["input"]]
            assert (np.diff(times[:, 0]) > 0).all() and "min" in document["accessors"][sampler["input"]]
    for image in document.get("images", []):
        view = document["bufferViews"][image["bufferView"]]
        assert binary[view["byteOffset"] :][:8] == b"\x89PNG\r\n\x1a\n" and "target" not in view
