"""glTF containers and their JSON: parsed and typed without believing anything."""

import json
import math
import struct
from typing import Any

import numpy as np

from renderers.ply_header import Damaged

GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_MAX_JSON_BYTES = 1 << 28
_MAX_CHUNKS = 1000

Json = dict[str, Any]


def parse_container(content: bytes) -> tuple[Json, bytes | None]:
    """Splits a .glb, or a .gltf, into its JSON document and the binary chunk, if it has one.

    Raises:
        Damaged: if it is neither, is of another version than 2, is cut short, or is not JSON.
    """
    if content[:4] != struct.pack("<I", GLB_MAGIC):
        return _parse_json(content), None
    if len(content) < 20:
        raise Damaged("the GLB header is cut short")
    version, length = struct.unpack_from("<II", content, 4)
    if version != 2:
        raise Damaged(f"it is glTF version {version}; only 2 is read: convert it, for instance with Blender")
    if length > len(content):
        raise Damaged(f"the header promises {length} bytes, the file has {len(content)}: it is cut short")
    chunks: dict[int, bytes] = {}
    offset = 12
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > length:
            break
        size, kind = struct.unpack_from("<II", content, offset)
        if size > length - offset - 8:
            raise Damaged(f"a chunk of {size} bytes begins where only {length - offset - 8} are left")
        if offset == 12 and kind != JSON_CHUNK:
            raise Damaged("the first chunk is not JSON")
        chunks.setdefault(kind, content[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if JSON_CHUNK not in chunks:
        raise Damaged("it has no JSON chunk")
    return _parse_json(chunks[JSON_CHUNK]), chunks.get(BIN_CHUNK)


def _parse_json(text: bytes) -> Json:
    if len(text) > _MAX_JSON_BYTES:
        raise Damaged(f"its JSON has {len(text)} bytes, more than the {_MAX_JSON_BYTES} that are read")

    def refuse(constant: str) -> None:
        raise Damaged(f"its JSON holds {constant}")

    try:
        document = json.loads(text.decode("utf-8-sig").rstrip("\0 "), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its JSON cannot be read ({str(error)[:80]})") from None
    if not isinstance(document, dict):
        raise Damaged("its JSON is not an object")
    version = child(document, "asset").get("version")
    if not isinstance(version, str) or not version.startswith("2."):
        raise Damaged(f"expected glTF version 2, got {str(version)[:20]!r}: convert it, for instance with Blender")
    return document


def child(owner: Json, key: str) -> Json:
    """The object under `key`, empty if absent."""
    value = owner.get(key, {})
    if not isinstance(value, dict):
        raise Damaged(f"`{key}` is not an object")
    return value


def objects(owner: Json, key: str) -> list[Json]:
    """The list of objects under `key`, empty if absent."""
    value = owner.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Damaged(f"`{key}` is not a list of objects")
    return value


def text(owner: Json, key: str, default: str = "") -> str:
    """The string under `key`."""
    value = owner.get(key, default)
    if not isinstance(value, str):
        raise Damaged(f"`{key}` is not a string")
    return value


def flag(owner: Json, key: str) -> bool:
    """The boolean under `key`, False if absent."""
    value = owner.get(key, False)
    if not isinstance(value, bool):
        raise Damaged(f"`{key}` is not true or false")
    return value


def integer(owner: Json, key: str, default: int | None, low: int = 0, high: int = 1 << 40) -> int:
    """The whole number under `key`, which must lie in [low, high]; required if there is no default."""
    value = owner.get(key, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Damaged(f"`{key}` is {str(value)[:40]!r}, not a whole number from {low} to {high}")
    return value


def index(owner: Json, key: str, count: int) -> int | None:
    """The index under `key` into a list of `count` items, None if absent."""
    return None if key not in owner else integer(owner, key, None, 0, count - 1)


def indices(owner: Json, key: str, count: int) -> tuple[int, ...]:
    """The list of indices under `key` into a list of `count` items, empty if absent."""
    value = owner.get(key, [])
    if not isinstance(value, list):
        raise Damaged(f"`{key}` is not a list")
    return tuple(integer({key: item}, key, None, 0, count - 1) for item in value)


def number(owner: Json, key: str, default: float) -> np.float32:
    """The finite number under `key`."""
    return np.float32(numbers({key: [owner.get(key, default)]}, key, (default,))[0])


def numbers(owner: Json, key: str, default: tuple[float, ...]) -> np.ndarray:
    """The finite numbers under `key`, as many as the default has, as float32."""
    value = owner.get(key, default)
    if not isinstance(value, list | tuple) or len(value) != len(default):
        raise Damaged(f"`{key}` is not a list of {len(default)} numbers")
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        raise Damaged(f"`{key}` holds something that is not a number")
    if not all(math.isfinite(item) and abs(item) < 3e38 for item in map(_as_float, value)):
        raise Damaged(f"`{key}` holds a number that is not finite")
    return np.array(value, np.float64).astype(np.float32)


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
