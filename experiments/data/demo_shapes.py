"""Shapes that a ray can be intersected with in NumPy: where it enters, and the outward normal there.

Rays are structures of arrays: origins and directions are float32 [3, n] (origins may be [3, 1]), directions have unit
length, distances are [n] with infinity for a miss. Only entries from outside count.
"""

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Float32

Rays = Float32[np.ndarray, "3 n"]
Distances = Float32[np.ndarray, " n"]

# Entries nearer than this are the surface that a shadow ray starts on.
_NEAREST = 1e-3
_TORUS_STEPS = 64


class Shape(Protocol):
    """A closed surface in its own or in world coordinates."""

    def enter(self, origins: Rays, directions: Rays) -> Distances:
        """Distance to the first entry, infinity for a miss."""
        ...

    def normals(self, points: Rays) -> Rays:
        """Outward unit normals at surface points."""
        ...


@dataclasses.dataclass(frozen=True)
class Sphere:
    """A ball."""

    center: tuple[float, float, float]
    radius: float

    def enter(self, origins: Rays, directions: Rays) -> Distances:
        """Distance to the first entry, infinity for a miss."""
        x, y, z = (origins[i] - np.float32(self.center[i]) for i in range(3))
        along = x * directions[0] + y * directions[1] + z * directions[2]
        inside = along * along - (x * x + y * y + z * z - np.float32(self.radius**2))
        distance = -along - np.sqrt(np.maximum(inside, 0))
        return np.where((inside > 0) & (distance > _NEAREST), distance, np.float32(np.inf))

    def normals(self, points: Rays) -> Rays:
        """Outward unit normals at surface points."""
        return (points - np.asarray(self.center, np.float32)[:, None]) / np.float32(self.radius)


@dataclasses.dataclass(frozen=True)
class Box:
    """A box turned about the vertical axis by `yaw` radians, given by its half extents."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float

    def to_local(self, vectors: Rays) -> Rays:
        """Turns vectors into the frame of the box's edges."""
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        return np.stack([c * vectors[0] - s * vectors[2], vectors[1], s * vectors[0] + c * vectors[2]])

    def enter(self, origins: Rays, directions: Rays) -> Distances:
        """Distance to the first entry, infinity for a miss."""
        start = self.to_local(origins - np.asarray(self.center, np.float32)[:, None])
        # Rays along a face would divide by zero.
        along = self.to_local(directions)
        inverse = 1 / np.where(np.abs(along) < 1e-7, np.float32(1e-7), along)
        half = np.asarray(self.half, np.float32)[:, None]
        first, second = (-half - start) * inverse, (half - start) * inverse
        near = np.minimum(first, second).max(axis=0)
        far = np.maximum(first, second).min(axis=0)
        return np.where((near < far) & (near > _NEAREST), near, np.float32(np.inf))

    def normals(self, points: Rays) -> Rays:
        """Outward unit normals at surface points."""
        local = (
            self.to_local(points - np.asarray(self.center, np.float32)[:, None])
            / np.asarray(self.half, np.float32)[:, None]
        )
        face = np.abs(local).argmax(axis=0)
        flat = np.zeros_like(local)
        np.put_along_axis(flat, face[None], np.sign(np.take_along_axis(local, face[None], 0)), 0)
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        return np.stack([c * flat[0] + s * flat[2], flat[1], -s * flat[0] + c * flat[2]])


@dataclasses.dataclass(frozen=True)
class Cylinder:
    """An upright capped cylinder: centre of its base, radius, height."""

    base: tuple[float, float, float]
    radius: float
    height: float

    def enter(self, origins: Rays, directions: Rays) -> Distances:
        """Distance to the first entry, infinity for a miss."""
        x, y, z = (origins[i] - np.float32(self.base[i]) for i in range(3))
        dx, dy, dz = directions
        # Infinite tube: a t^2 + 2 b t + c = 0.
        a = np.maximum(dx * dx + dz * dz, np.float32(1e-12))
        b = x * dx + z * dz
        c = x * x + z * z - np.float32(self.radius**2)
        inside = b * b - a * c
        root = np.sqrt(np.maximum(inside, 0))
        slope = np.where(np.abs(dy) < 1e-7, np.float32(1e-7), dy)
        bottom, top = -y / slope, (np.float32(self.height) - y) / slope
        near = np.maximum((-b - root) / a, np.minimum(bottom, top))
        far = np.minimum((-b + root) / a, np.maximum(bottom, top))
        return np.where((inside > 0) & (near < far) & (near > _NEAREST), near, np.float32(np.inf))

    def normals(self, points: Rays) -> Rays:
        """Outward unit normals at surface points."""
        x, y, z = points - np.asarray(self.base, np.float32)[:, None]
        radial = np.sqrt(x * x + z * z)
        to_side, to_top, to_bottom = np.abs(radial - self.radius), np.abs(y - self.height), np.abs(y)
        on_side = to_side < np.minimum(to_top, to_bottom)
        up = np.where(on_side, 0, np.where(to_top < to_bottom, 1, -1)).astype(np.float32)
        safe = np.maximum(radial, np.float32(1e-6))
        return np.stack([np.where(on_side, x / safe, 0), up, np.where(on_side, z / safe, 0)])


@dataclasses.dataclass(frozen=True)
class Torus:
    """A ring: centre, unit axis, radius of the circle and of the tube around it."""

    center: tuple[float, float, float]
    axis: tuple[float, float, float]
    major: float
    minor: float

    def enter(self, origins: Rays, directions: Rays) -> Distances:
        """Distance to the first entry by sphere tracing inside the ring's bounding ball, infinity for a miss."""
        result = np.full(directions.shape[1], np.inf, np.float32)
        x = np.broadcast_to(origins - np.asarray(self.center, np.float32)[:, None], directions.shape)
        along = (x * directions).sum(axis=0)
        reach = along * along - (x * x).sum(axis=0) + np.float32((self.major + self.minor) ** 2)
        rays = np.flatnonzero((reach > 0) & (along < np.sqrt(np.maximum(reach, 0))))
        start, direction, along, root = x[:, rays], directions[:, rays], along[rays], np.sqrt(reach[rays])
        distance = np.maximum(-along - root, np.float32(_NEAREST))
        end = -along + root
        for _ in range(_TORUS_STEPS):
            gap = self._gap(start + distance * direction)
            hit = gap < 2e-4
            result[rays[hit]] = distance[hit]
            going = ~hit & (distance < end)
            if not going.any():
                break
            distance = (distance + gap)[going]
            rays, start, direction, end = rays[going], start[:, going], direction[:, going], end[going]
        return np.where(result > 2 * _NEAREST, result, np.float32(np.inf))

    def normals(self, points: Rays) -> Rays:
        """Outward unit normals at surface points."""
        local = points - np.asarray(self.center, np.float32)[:, None]
        axis = np.asarray(self.axis, np.float32)[:, None]
        flat = local - (local * axis).sum(axis=0) * axis
        outward = local - flat * (np.float32(self.major) / np.maximum(np.linalg.norm(flat, axis=0), 1e-6))
        return outward / np.maximum(np.linalg.norm(outward, axis=0), np.float32(1e-6))

    def _gap(self, local: Rays) -> Distances:
        height = (local * np.asarray(self.axis, np.float32)[:, None]).sum(axis=0)
        ring = np.sqrt(np.maximum((local * local).sum(axis=0) - height * height, 0)) - np.float32(self.major)
        return np.sqrt(ring * ring + height * height) - np.float32(self.minor)
