"""The point of a face that a pixel sees, and its derivative, on the host. Numba; float32 arrays, float64 arithmetic.

The equations are those of `surface.py`; with E_i = p_j x p_k, S = sum E_i and b_i = E_i / S the derivative is

    dL / dE_i = (g_i - sum_j g_j b_j) / S,    g_i = dL / db_i + z_i dL / ddepth.

Gradients of vertices are summed by ranges of pixels, each with sums of its own, and then over the ranges: results do
not depend on the number of threads.
"""

import math

import numba as nb
import numpy as np

from renderers.kernels.jit_numba import njit
from renderers.kernels.triangle_raster.cpu import PARALLEL, PERSPECTIVE

_PARTS = 8  # ranges of pixels
_MOST_SUMS = 1 << 25  # numbers in the sums of all ranges: larger meshes take fewer ranges
_SLIVER = float(np.finfo(np.float32).eps) ** 2
_SMALLEST_LENGTH_SQUARED = 1e-30


@njit(nogil=True, cache=True, error_model="numpy")
def _cyclic(axis, x, y, z):
    """(x, y, z), (y, z, x) or (z, x, y): the ray's largest component last, for axis 0, 1, 2."""
    if axis == 0:
        return x, y, z
    if axis == 1:
        return y, z, x
    return z, x, y


@njit(nogil=True, cache=True, error_model="numpy")
def _uncyclic(axis, x, y, z):
    if axis == 0:
        return x, y, z
    if axis == 1:
        return z, x, y
    return y, z, x


@njit(nogil=True, cache=True, error_model="numpy")
def _axis(dx, dy, dz, projection):
    if projection == PERSPECTIVE or projection == PARALLEL or abs(dz) >= max(abs(dx), abs(dy)):
        return 0
    return 1 if abs(dx) >= abs(dy) else 2


@njit(nogil=True, cache=True, error_model="numpy")
def _shear(dx, dy, dz, axis, projection):
    """The coefficients (sx, sy) and whether they multiply the corner's third coordinate (1) or stand alone (0)."""
    if projection == PERSPECTIVE:
        return dx, dy, 1.0
    if projection == PARALLEL:
        return dx, dy, 0.0
    x, y, z = _cyclic(axis, dx, dy, dz)
    return x / z, y / z, 1.0


@njit(nogil=True, cache=True, error_model="numpy")
def _corner(vertices, vertex, pose):
    """A vertex in the camera's frame."""
    x, y, z = np.float64(vertices[vertex, 0]), np.float64(vertices[vertex, 1]), np.float64(vertices[vertex, 2])
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3],
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _point(corner, sx, sy, third, axis):
    """The corner in the plane across the ray."""
    x, y, z = _cyclic(axis, corner[0], corner[1], corner[2])
    factor = z if third > 0 else 1.0
    return x - sx * factor, y - sy * factor


@njit(nogil=True, cache=True, error_model="numpy")
def _weights(a, b, c):
    """b_i before rounding is cut off, the sum S, and whether that is more than rounding."""
    ea, eb, ec = b[0] * c[1] - b[1] * c[0], c[0] * a[1] - c[1] * a[0], a[0] * b[1] - a[1] * b[0]
    total = ea + eb + ec
    largest = max(abs(a[0]), abs(a[1]), abs(b[0]), abs(b[1]), abs(c[0]), abs(c[1]))
    if not abs(total) > _SLIVER * largest * largest or largest == 0:
        return 1 / 3, 1 / 3, 1 / 3, 1.0, False
    return ea / total, eb / total, ec / total, total, True


@njit(nogil=True, cache=True, error_model="numpy")
def _face_normal(vertices, i, j, k):
    """Edges u, v from the first corner, u x v scaled to length one, and one over its length; zeros without area."""
    ux, uy, uz = (
        np.float64(vertices[j, 0]) - vertices[i, 0],
        np.float64(vertices[j, 1]) - vertices[i, 1],
        np.float64(vertices[j, 2]) - vertices[i, 2],
    )
    vx, vy, vz = (
        np.float64(vertices[k, 0]) - vertices[i, 0],
        np.float64(vertices[k, 1]) - vertices[i, 1],
        np.float64(vertices[k, 2]) - vertices[i, 2],
    )
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    squared = x * x + y * y + z * z
    inverse = 1 / math.sqrt(squared) if squared > _SMALLEST_LENGTH_SQUARED else 0.0
    return (ux, uy, uz), (vx, vy, vz), (x * inverse, y * inverse, z * inverse), inverse


@njit(nogil=True, cache=True, error_model="numpy")
def _pixel_surface(vertices, faces, face, ray, pose, projection, share, normal):
    """Fill a pixel's barycentric coordinates and normal; returns its depth."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    dx, dy, dz = np.float64(ray[0]), np.float64(ray[1]), np.float64(ray[2])
    axis = _axis(dx, dy, dz, projection)
    sx, sy, third = _shear(dx, dy, dz, axis, projection)
    a, b, c = _corner(vertices, i, pose), _corner(vertices, j, pose), _corner(vertices, k, pose)
    pa, pb, pc = (_point(a, sx, sy, third, axis), _point(b, sx, sy, third, axis), _point(c, sx, sy, third, axis))
    ua, ub, uc, _, _ = _weights(pa, pb, pc)
    ua, ub, uc = max(ua, 0.0), max(ub, 0.0), max(uc, 0.0)
    whole = 1 / (ua + ub + uc)
    ua, ub, uc = ua * whole, ub * whole, uc * whole
    share[0], share[1], share[2] = ua, ub, uc
    n = _face_normal(vertices, i, j, k)[2]
    normal[0], normal[1], normal[2] = n
    return ua * a[2] + ub * b[2] + uc * c[2]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def surface(vertices, faces, index, rays, pose, projection, barycentric, depth, normal):
    """Fill barycentric [p, 3], depth [p] and normal [p, 3]; index [p] and rays [p, 3] are flat images."""
    pixels = index.shape[0]
    precise = pose.astype(np.float64)
    for part in nb.prange(4 * _PARTS):
        for p in range(part * pixels // (4 * _PARTS), (part + 1) * pixels // (4 * _PARTS)):
            if index[p] >= 0:
                depth[p] = _pixel_surface(
                    vertices, faces, index[p], rays[p], precise, projection, barycentric[p], normal[p]
                )
                continue
            depth[p] = 0
            for axis in range(3):
                barycentric[p, axis] = 0
                normal[p, axis] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def _plane_gradients(a, b, c, g):
    """Gradients of the three plane points from those of E."""
    return (
        (-c[1] * g[1] + b[1] * g[2], c[0] * g[1] - b[0] * g[2]),
        (c[1] * g[0] - a[1] * g[2], -c[0] * g[0] + a[0] * g[2]),
        (-b[1] * g[0] + a[1] * g[1], b[0] * g[0] - a[0] * g[1]),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _back_to_vertex(sums, pose_sums, vertices, vertex, pose, gradient, plane, shear, gz, at):
    """Add what a corner's plane point and depth receive to its vertex and to the pose."""
    sx, sy, third, axis = shear
    gx, gy, g_depth = _uncyclic(axis, plane[0], plane[1], -third * (sx * plane[0] + sy * plane[1]))
    gc = g_depth + gz
    for col in range(3):
        moved = pose[0, col] * gx + pose[1, col] * gy + pose[2, col] * gc + gradient[col]
        sums[vertex, col] += np.float32(moved)
        value = np.float64(vertices[vertex, col])
        pose_sums[at, 0, col] += gx * value
        pose_sums[at, 1, col] += gy * value
        pose_sums[at, 2, col] += gc * value
    pose_sums[at, 0, 3] += gx
    pose_sums[at, 1, 3] += gy
    pose_sums[at, 2, 3] += gc


@njit(nogil=True, cache=True, error_model="numpy")
def _pixel_gradient(vertices, faces, face, ray, pose, projection, g_share, g_depth, g_normal, sums, pose_sums, at, out):
    """Add a pixel's gradients to the sums of its part; its ray's into `out`."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    dx, dy, dz = np.float64(ray[0]), np.float64(ray[1]), np.float64(ray[2])
    axis = _axis(dx, dy, dz, projection)
    sx, sy, third = _shear(dx, dy, dz, axis, projection)
    shear = (sx, sy, third, axis)
    a, b, c = _corner(vertices, i, pose), _corner(vertices, j, pose), _corner(vertices, k, pose)
    pa, pb, pc = (_point(a, sx, sy, third, axis), _point(b, sx, sy, third, axis), _point(c, sx, sy, third, axis))
    u, v, w, total, solid = _weights(pa, pb, pc)
    ga, gb, gc = g_share[0] + g_depth * a[2], g_share[1] + g_depth * b[2], g_share[2] + g_depth * c[2]
    mean = ga * u + gb * v + gc * w
    inverse = 1 / total if solid else 0.0
    edges = ((ga - mean) * inverse, (gb - mean) * inverse, (gc - mean) * inverse)
    qa, qb, qc = _plane_gradients(pa, pb, pc, edges)
    # the normal: of u x v through its length to the edges
    first, second, n, per_length = _face_normal(vertices, i, j, k)
    along = n[0] * g_normal[0] + n[1] * g_normal[1] + n[2] * g_normal[2]
    mx, my, mz = (
        (g_normal[0] - n[0] * along) * per_length,
        (g_normal[1] - n[1] * along) * per_length,
        (g_normal[2] - n[2] * along) * per_length,
    )
    nb_ = (second[1] * mz - second[2] * my, second[2] * mx - second[0] * mz, second[0] * my - second[1] * mx)
    nc = (my * first[2] - mz * first[1], mz * first[0] - mx * first[2], mx * first[1] - my * first[0])
    na = (-nb_[0] - nc[0], -nb_[1] - nc[1], -nb_[2] - nc[2])
    # depth takes the shares after rounding is cut off
    ku, kv, kw = max(u, 0.0), max(v, 0.0), max(w, 0.0)
    kept = g_depth / (ku + kv + kw)
    _back_to_vertex(sums, pose_sums, vertices, i, pose, na, qa, shear, kept * ku, at)
    _back_to_vertex(sums, pose_sums, vertices, j, pose, nb_, qb, shear, kept * kv, at)
    _back_to_vertex(sums, pose_sums, vertices, k, pose, nc, qc, shear, kept * kw, at)
    za, zb, zc = (_cyclic(axis, *a)[2], _cyclic(axis, *b)[2], _cyclic(axis, *c)[2]) if third > 0 else (1.0, 1.0, 1.0)
    gsx, gsy = -(qa[0] * za + qb[0] * zb + qc[0] * zc), -(qa[1] * za + qb[1] * zb + qc[1] * zc)
    gz = 0.0
    if projection != PERSPECTIVE and projection != PARALLEL:
        along_axis = _cyclic(axis, dx, dy, dz)[2]
        gsx, gsy = gsx / along_axis, gsy / along_axis
        gz = -(gsx * sx + gsy * sy)
    out[0], out[1], out[2] = _uncyclic(axis, gsx, gsy, gz)


@njit(nogil=True, cache=True)
def _num_parts(vertices, channels):
    return max(1, min(_PARTS, _MOST_SUMS // max(vertices * channels, 1)))


@njit(parallel=True, nogil=True, cache=True)
def _add_parts(sums, gradient):
    """Sum over parts, in order."""
    parts, vertices, channels = sums.shape
    for block in nb.prange(_PARTS):
        for vertex in range(block * vertices // _PARTS, (block + 1) * vertices // _PARTS):
            for c in range(channels):
                total = sums[0, vertex, c]
                for part in range(1, parts):
                    total += sums[part, vertex, c]
                gradient[vertex, c] = total


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def surface_gradients(
    vertices, faces, index, rays, pose, projection, g_share, g_depth, g_normal, g_vertices, g_rays, g_pose
):
    """Fill the gradients of vertices [v, 3], rays [p, 3] and pose [3, 4]."""
    pixels, parts = index.shape[0], _num_parts(vertices.shape[0], 3)
    precise = pose.astype(np.float64)
    sums = np.zeros((parts, vertices.shape[0], 3), np.float32)
    pose_sums = np.zeros((parts, 3, 4))
    for part in nb.prange(parts):
        for p in range(part * pixels // parts, (part + 1) * pixels // parts):
            g_rays[p, 0], g_rays[p, 1], g_rays[p, 2] = 0, 0, 0
            if index[p] >= 0:
                _pixel_gradient(
                    vertices, faces, index[p], rays[p], precise, projection, g_share[p], np.float64(g_depth[p]),
                    g_normal[p], sums[part], pose_sums, part, g_rays[p],
                )  # fmt: skip
    _add_parts(sums, g_vertices)
    for row in range(3):
        for col in range(4):
            total = 0.0
            for part in range(parts):
                total += pose_sums[part, row, col]
            g_pose[row, col] = total


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def blend(values, faces, index, barycentric, image):
    """Fill `image` [p, c]."""
    pixels, channels = image.shape
    for part in nb.prange(4 * _PARTS):
        for p in range(part * pixels // (4 * _PARTS), (part + 1) * pixels // (4 * _PARTS)):
            face = index[p]
            if face < 0:
                for c in range(channels):
                    image[p, c] = 0
                continue
            i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
            u, v, w = barycentric[p, 0], barycentric[p, 1], barycentric[p, 2]
            for c in range(channels):
                image[p, c] = u * values[i, c] + v * values[j, c] + w * values[k, c]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def blend_gradients(values, faces, index, barycentric, g_image, g_values, g_share):
    """Fill the gradients of values [v, c] and barycentric [p, 3]."""
    pixels, channels = g_image.shape
    parts = _num_parts(values.shape[0], channels)
    sums = np.zeros((parts, values.shape[0], channels), np.float32)
    for part in nb.prange(parts):
        for p in range(part * pixels // parts, (part + 1) * pixels // parts):
            face = index[p]
            for corner in range(3):
                total = np.float32(0)
                if face >= 0:
                    vertex, share = faces[face, corner], barycentric[p, corner]
                    for c in range(channels):
                        sums[part, vertex, c] += share * g_image[p, c]
                        total += values[vertex, c] * g_image[p, c]
                g_share[p, corner] = total
    _add_parts(sums, g_values)
