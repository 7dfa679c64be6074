"""Small hard triangle scenes, and what float64 geometry allows each pixel to see."""

import numpy as np

SIZE = (37, 45)  # no multiple of a tile
NUM_FACES = 64
NEAR = 0.125
FOCAL = 32.0  # powers of two: rays of pixel centres are exact
PROJECTIONS = ("perspective", "parallel", "spherical")
_CLOSE = 1e-5  # of a scene's extent: nearer to an edge than that, float32 may decide either way
_EDGE_ON = 1e-3  # sine of the angle between ray and face below which the hit's depth is rounding


def rays(projection: str) -> np.ndarray:
    """float32 [h, w, 3] of pixel centres; the fisheye sees 140 degrees across the diagonal and more."""
    y, x = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5, indexing="ij")
    p, q = (x - 22.5) / FOCAL, (y - 18.5) / FOCAL
    if projection == "perspective":
        made = np.stack([p, q, np.ones_like(p)], -1)
    elif projection == "parallel":
        made = np.stack([4 * p, 4 * q, np.zeros_like(p)], -1)
    else:
        angle = 2.5 * np.hypot(p, q)  # up to 129 degrees from the axis
        scale = 2.5 * np.sinc(angle / np.pi)
        made = np.stack([p * scale, q * scale, np.cos(angle)], -1)
    return made.astype(np.float32)


def _soup(rng, center, spread, edge):
    middle = np.asarray(center) + rng.normal(size=(NUM_FACES, 1, 3)) * np.asarray(spread)
    return middle + rng.normal(size=(NUM_FACES, 3, 3)) * edge


def _slivers(rng):
    corners = _soup(rng, (0, 0, 3), (1, 1, 0.5), 0.8)
    thin = 10.0 ** rng.uniform(-9, -0.5, (NUM_FACES, 3))
    corners[:, 2] = corners[:, 0] + (corners[:, 1] - corners[:, 0]) * rng.uniform(0, 1, (NUM_FACES, 1)) + thin
    corners[::8, 2] = corners[::8, 1]  # no area at all
    corners[1::8] = corners[1::8, :1]
    corners[2::8, 0, 1], corners[3::8, 1, 2] = np.nan, np.inf
    return corners


def _ties(rng):
    """Every face four times, its corners in the same order: the lowest index is seen."""
    corners = _soup(rng, (0, 0, 3), (1, 1, 0.5), 0.8)
    return np.repeat(corners[: NUM_FACES // 4], 4, axis=0)


def _behind(rng):
    return _soup(rng, (0, 0, -4), (1, 1, 0.3), 0.3)


SCENES = {
    "random": lambda rng: _soup(rng, (0, 0, 3), (1, 1, 0.5), 0.4),
    "big": lambda rng: _soup(rng, (0, 0, 6), (2, 2, 1), 20.0),
    "crossing": lambda rng: _soup(rng, (0, 0, 0.2), (1, 1, 0.3), 1.0),
    "around": lambda rng: _soup(rng, (0, 0, 0), (0.1, 0.1, 0.1), 2.0),
    "subpixel": lambda rng: _soup(rng, (0, 0, 2), (1, 1, 0.5), 0.01),
    "slivers": _slivers,
    "ties": _ties,
    "behind": _behind,
}


def scene(name: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 points [3 f, 3] and int32 faces [f, 3]."""
    corners = SCENES[name](np.random.default_rng(sorted(SCENES).index(name)))
    return corners.reshape(-1, 3).astype(np.float32), np.arange(3 * NUM_FACES, dtype=np.int32).reshape(-1, 3)


def allowed(points: np.ndarray, faces: np.ndarray, rays: np.ndarray, projection: str) -> np.ndarray:
    """Which faces each pixel may see, bool [h, w, f + 1]; the last is none. Float64, by distances to edges in a plane.

    A face is certain where the ray passes well inside its outline, possible where it passes close to it. What is
    possible may be seen if nothing certain is nearer.
    """
    corners, d = points.astype(np.float64)[faces], rays.astype(np.float64)[:, :, None]
    finite = np.isfinite(corners).all((1, 2))
    corners = np.where(finite[:, None, None], corners, 0.0)
    origin = d * (1, 1, 0) if projection == "parallel" else 0 * d
    direction = np.zeros_like(d) + (0, 0, 1) if projection == "parallel" else d
    # a plane across the ray: any two vectors at right angles to it
    u = np.cross(direction, np.where(np.abs(direction[..., :1]) < 0.5, (1.0, 0, 0), (0, 1.0, 0)))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    v = np.cross(direction, u) / np.linalg.norm(direction, axis=-1, keepdims=True)
    relative = corners[None, None] - origin[:, :, :, None]
    plane = np.stack([(relative * u[:, :, :, None]).sum(-1), (relative * v[:, :, :, None]).sum(-1)], -1)
    inside, distance = _inside_and_distance(plane)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    slope = (direction * normal).sum(-1)
    size = np.linalg.norm(normal, axis=-1) * np.linalg.norm(direction, axis=-1)
    edge_on = np.abs(slope) <= _EDGE_ON * size
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(edge_on, 0.0, (relative[..., 0, :] * normal).sum(-1) / slope)
    along = (relative * direction[:, :, :, None]).sum(-1) / (direction**2).sum(-1)[..., None]
    nearest, farthest = np.where(edge_on, along.min(-1), t), np.where(edge_on, along.max(-1), t)
    scale = _CLOSE * (1 + np.abs(corners).max((1, 2)))
    # off the edge by `scale` the depth is off by that over the slope
    slack = scale * (1 + np.where(edge_on, 0.0, size / np.maximum(np.abs(slope), 1e-30)))
    possible = finite & (inside | (distance <= scale)) & (farthest + slack > NEAR)
    certain = finite & inside & (distance > scale) & ~edge_on & (nearest - slack > NEAR)
    limit = np.where(certain, farthest + slack, np.inf).min(-1, keepdims=True)
    return np.concatenate([possible & (nearest - slack <= limit), ~certain.any(-1, keepdims=True)], -1)


def _inside_and_distance(plane):
    """Of the origin and triangles [..., 3, 2]."""
    following = np.roll(plane, -1, -2)
    edge = following - plane
    turn = plane[..., 0] * following[..., 1] - plane[..., 1] * following[..., 0]
    inside = (turn > 0).all(-1) | (turn < 0).all(-1)
    length = (edge**2).sum(-1)
    at = np.clip(-(plane * edge).sum(-1) / np.where(length > 0, length, 1.0), 0, 1)
    return inside, np.linalg.norm(plane + at[..., None] * edge, axis=-1).min(-1)
