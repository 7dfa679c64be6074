"""glTF meshes: the primitives of triangles as Part records (glTF 2.0, 3.7).

Arrays are handed to jax by `jnp.array`: `jnp.asarray` compiles a program for each shape that it has not met (jax 0.10).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from renderers.meshes.codecs import gltf_json
from renderers.meshes.codecs.gltf_accessors import Accessors
from renderers.meshes.codecs.gltf_json import Json
from renderers.meshes.codecs.gltf_materials import Look, Materials
from renderers.meshes.mesh import Mesh
from renderers.meshes.scene import Part
from renderers.ply_header import Damaged

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MODES = ("points", "lines", "line loops", "line strips", "triangles", "triangle strips", "triangle fans")
_READ = {"POSITION", "NORMAL", "TANGENT", "COLOR_0"}


class Primitives:
    """Reads the meshes of one document, each once; `parts` grows as they are asked for."""

    def __init__(self, document: Json, accessors: Accessors, materials: Materials, notes: list[str]):
        self._meshes = gltf_json.objects(document, "meshes")
        self._accessors, self._materials, self._notes = accessors, materials, notes
        self._read: dict[int, tuple[tuple[int, ...], np.ndarray | None]] = {}
        self._arrays: dict[tuple, Array] = {}
        self._highest: dict[tuple, int] = {}  # vertex that faces name
        self.parts: list[Part] = []

    def __len__(self) -> int:
        return len(self._meshes)

    def of_mesh(self, index: int) -> tuple[tuple[int, ...], np.ndarray | None]:
        """Indices of the parts that a mesh is made of, and the weights of its morph targets."""
        if index not in self._read:
            mesh, first = self._meshes[index], len(self.parts)
            for number, primitive in enumerate(gltf_json.objects(mesh, "primitives")):
                part = self._part(primitive, gltf_json.text(mesh, "name"), f"mesh {index} primitive {number}")
                self.parts += [] if part is None else [part]
            indices = tuple(range(first, len(self.parts)))
            targets = {0 if (p := self.parts[i].morph_positions) is None else len(p) for i in indices}
            if len(targets) > 1:
                raise Damaged(f"the primitives of mesh {index} differ in their number of morph targets")
            count = targets.pop() if targets else 0
            weights = gltf_json.numbers(mesh, "weights", (0.0,) * count) if count else None
            self._read[index] = indices, weights
        return self._read[index]

    def _part(self, primitive: Json, name: str, what: str) -> Part | None:
        attributes = gltf_json.child(primitive, "attributes")
        mode = gltf_json.integer(primitive, "mode", _TRIANGLES, 0, 6)
        if mode < _TRIANGLES:
            self._notes.append(f"{what}: its {_MODES[mode]} are ignored")
            return None
        position = gltf_json.index(attributes, "POSITION", len(self._accessors))
        if position is None:
            self._notes.append(f"{what}: it has no positions and is ignored")
            return None
        compressed = "KHR_draco_mesh_compression" in gltf_json.child(primitive, "extensions")
        if compressed and not self._accessors.has_data(position):
            raise Damaged("it is compressed by KHR_draco_mesh_compression: decompress it, for instance with "
                          "`gltf-transform copy in.glb out.glb`")  # fmt: skip
        vertices = self._floats(position, ("VEC3",), None, what)
        count = len(vertices)
        look = self._materials.look(gltf_json.index(primitive, "material", len(self._materials)))
        joints, weights = self._influences(attributes, count, what)
        positions, normals = self._targets(primitive, count, what)
        self._note_unread(attributes, look, weights, what)
        return Part(
            mesh=Mesh(
                vertices=vertices,
                faces=self._faces(primitive, mode, count, what),
                uv=self._uv(attributes, look, count, what),
                texture=look.texture if self._has_uv(attributes, look) else None,
                vertex_colors=self._attribute(attributes, "COLOR_0", ("VEC3", "VEC4"), count, what),
                material=look.material,
                normals=self._directions(attributes, "NORMAL", "VEC3", count, what),
            ),
            tangents=self._directions(attributes, "TANGENT", "VEC4", count, what),
            joints=joints, weights=weights, morph_positions=positions, morph_normals=normals, name=name,
            wrap=look.wrap, filter=look.filter,  # type: ignore[arg-type]
        )  # fmt: skip

    def _floats(self, accessor: int, types: tuple[str, ...], count: int | None, what: str) -> Array:
        key = (accessor, types)
        if key not in self._arrays:
            self._arrays[key] = jnp.array(self._accessors.floats(accessor, types))
        if count is not None and len(self._arrays[key]) != count:
            raise Damaged(f"{what} has {count} vertices, but {len(self._arrays[key])} rows in accessor {accessor}")
        return self._arrays[key]

    def _attribute(self, attributes: Json, name: str, types: tuple[str, ...], count: int, what: str) -> Array | None:
        accessor = gltf_json.index(attributes, name, len(self._accessors))
        return None if accessor is None else self._floats(accessor, types, count, what)

    def _has_uv(self, attributes: Json, look: Look) -> bool:
        return f"TEXCOORD_{look.uv_set}" in attributes

    def _uv(self, attributes: Json, look: Look, count: int, what: str) -> Array | None:
        name = f"TEXCOORD_{look.uv_set}"
        accessor = gltf_json.index(attributes, name, len(self._accessors))
        if accessor is None:
            return None
        key = (accessor, "uv", look.uv_transform)
        if key not in self._arrays:
            uv = self._accessors.floats(accessor, ("VEC2",)).copy()
            if look.uv_transform is not None:
                u0, v0, angle, du, dv = look.uv_transform
                turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
                uv = ((uv.astype(np.float64) * (du, dv)) @ turn.T + (u0, v0)).astype(np.float32)
            uv[:, 1] = 1 - uv[:, 1]
            if not np.isfinite(uv).all():
                raise Damaged(f"{what} has texture coordinates that are not finite")
            self._arrays[key] = jnp.array(uv)
        if len(self._arrays[key]) != count:
            raise Damaged(f"{what} has {count} vertices, but {len(self._arrays[key])} rows in accessor {accessor}")
        return self._arrays[key]

    def _faces(self, primitive: Json, mode: int, count: int, what: str) -> Array:
        accessor = gltf_json.index(primitive, "indices", len(self._accessors))
        key = (accessor if accessor is not None else -count, "faces", mode)
        if key not in self._arrays:
            corners = np.arange(count) if accessor is None else self._accessors.integers(accessor, ("SCALAR",))[:, 0]
            faces = _triangles(corners, mode, what)
            # On the host: a reduction on the device would be compiled for every number of faces
            self._highest[key] = int(faces.max(initial=-1))
            self._arrays[key] = jnp.array(faces)
        if self._highest[key] >= count:
            raise Damaged(f"{what} has {count} vertices, but a face with vertex {self._highest[key]}")
        return self._arrays[key]

    def _influences(self, attributes: Json, count: int, what: str) -> tuple[Array | None, Array | None]:
        joints, weights = [], []
        while f"JOINTS_{len(joints)}" in attributes:
            accessor = gltf_json.index(attributes, f"JOINTS_{len(joints)}", len(self._accessors))
            weight = gltf_json.index(attributes, f"WEIGHTS_{len(joints)}", len(self._accessors))
            if accessor is None or weight is None:
                raise Damaged(f"{what} has joints without weights")
            joints.append(self._accessors.integers(accessor, ("VEC4",)))
            weights.append(self._accessors.floats(weight, ("VEC4",), finite=False))
            if len(joints[-1]) != count or len(weights[-1]) != count:
                raise Damaged(f"{what} has joints and weights that do not fit its {count} vertices")
        if not joints:
            return None, None
        indices, shares = np.concatenate(joints, 1).astype(np.int64), np.concatenate(weights, 1)
        bad = ~np.isfinite(shares) | (shares < 0)
        if bad.any():
            self._notes.append(f"{what}: {int(bad.any(axis=1).sum())} vertices have invalid weights, read as 0")
            shares = np.where(bad, np.float32(0), shares)
        lost = ~(shares > 0).any(axis=1)
        shares[lost, 0] = 1
        indices[shares == 0] = 0  # files put anything where the weight is zero
        if indices.max() >= 1 << 16:
            raise Damaged(f"{what} follows a joint past any skin")
        return jnp.array(indices.astype(np.int32)), jnp.array(shares)

    def _directions(self, attributes: Json, name: str, kind: str, count: int, what: str) -> Array | None:
        """Normals or tangents; none, with a note, if some are not finite: they follow from the rest."""
        accessor = gltf_json.index(attributes, name, len(self._accessors))
        if accessor is not None and not np.isfinite(self._accessors.floats(accessor, (kind,), finite=False)).all():
            self._notes.append(f"{what}: its attribute {name} is not finite everywhere and is ignored")
            return None
        return self._attribute(attributes, name, (kind,), count, what)

    def _targets(self, primitive: Json, count: int, what: str) -> tuple[Array | None, Array | None]:
        targets = gltf_json.objects(primitive, "targets")
        if not targets:
            return None, None
        if any("TANGENT" in target for target in targets):
            self._notes.append(f"{what}: offsets of tangents of its morph targets are ignored")
        offsets = []
        for name in ("POSITION", "NORMAL"):
            rows = [self._attribute(target, name, ("VEC3",), count, what) for target in targets]
            if len(rows) * count > 1 << 27:
                raise Damaged(f"{what} has {len(rows)} morph targets of {count} vertices, more than are read")
            if name == "NORMAL" and all(row is None for row in rows):
                offsets.append(None)
            else:
                zero = np.zeros((count, 3), np.float32)
                offsets.append(jnp.array(np.stack([zero if row is None else np.asarray(row) for row in rows])))
        return offsets[0], offsets[1]

    def _note_unread(self, attributes: Json, look: Look, weights: Array | None, what: str) -> None:
        sets = 0 if weights is None else weights.shape[1] // 4
        read = _READ | {f"TEXCOORD_{look.uv_set}", *(f"{k}_{i}" for k in ("JOINTS", "WEIGHTS") for i in range(sets))}
        for name in sorted(attributes.keys() - read):
            self._notes.append(f"{what}: its attribute {name[:40]!r} is ignored")
        if look.texture is not None and not self._has_uv(attributes, look):
            self._notes.append(f"{what}: it has a texture but no texture coordinates; the texture is ignored")


def _triangles(corners: np.ndarray, mode: int, what: str) -> np.ndarray:
    """Faces from a run of corners; strips alternate their orientation (glTF 2.0, 3.7.2.1)."""
    if corners.size and corners.max() >= 1 << 31:
        raise Damaged(f"{what} has a face with vertex {corners.max()}")
    corners = corners.astype(np.int32)
    if mode == _TRIANGLES:
        if len(corners) % 3:
            raise Damaged(f"{what} has {len(corners)} corners, which is not a multiple of 3")
        return corners.reshape(-1, 3)
    i = np.arange(max(len(corners) - 2, 0))
    if mode == _FAN:
        return np.stack([corners[i + 1], corners[i + 2], np.broadcast_to(corners[:1], i.shape)], axis=1)
    odd = i % 2
    return np.stack([corners[i], corners[i + 1 + odd], corners[i + 2 - odd]], axis=1)
