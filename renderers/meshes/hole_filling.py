"""Small holes of a mesh closed with triangles of the least total area. Runs on the host."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from renderers.meshes.cleanup import with_uv_faces
from renderers.meshes.connectivity import boundary_edges, half_edges
from renderers.meshes.mesh import Mesh


def fill_holes(mesh: Mesh, *, max_edges: int = 100) -> Mesh:
    """Closes every hole of at most `max_edges` edges, without new vertices.

    Of all triangulations of a hole's border the one of least area (dynamic programming, Barequet and Sharir, "Filling
    gaps in the boundary of a polyhedron", 1995) that repeats no edge of the mesh, so that manifolds stay manifold.
    A border that touches itself in a vertex is divided there; a hole without such a triangulation stays open. New
    faces take the texture coordinates of the border. Time grows with the cube of the number of edges.

    Args:
        mesh: faces consistently oriented (`cleanup.orient_faces`).
        max_edges: holes with longer borders stay; the rim of an open vase is not a defect.
    """
    faces = np.asarray(mesh.faces)
    mesh = with_uv_faces(mesh)
    vertices = np.asarray(mesh.vertices, np.float64)
    edges = {tuple(sorted(edge)) for edge in half_edges(faces).tolist()}
    added = []
    for loop in boundary_loops(faces):
        if 3 <= len(loop) <= max_edges:
            patch = _triangulate(loop, vertices, edges)
            added += patch
            edges |= {tuple(sorted(edge)) for face in patch for edge in zip(face, face[1:] + face[:1], strict=True)}
    if not added:
        return mesh
    new = np.array(added, np.int32)
    uv_faces = mesh.uv_faces
    if uv_faces is not None:
        uv_of_vertex = np.zeros(len(vertices), np.int32)
        uv_of_vertex[faces.reshape(-1)] = np.asarray(uv_faces).reshape(-1)
        uv_faces = jnp.concatenate([uv_faces, jnp.asarray(uv_of_vertex[new], uv_faces.dtype)])
    return dataclasses.replace(
        mesh, faces=jnp.concatenate([mesh.faces, jnp.asarray(new, mesh.faces.dtype)]), uv_faces=uv_faces
    )


def boundary_loops(faces) -> list[list[int]]:
    """Borders as closed lists of vertices, in the direction in which faces that fill them must run."""
    following: dict[int, list[int]] = {}
    for a, b in boundary_edges(np.asarray(faces)).tolist():
        following.setdefault(b, []).append(a)  # a filling face runs against the border's own face
    loops = []
    while following:
        path, place = [min(following)], {}
        place[path[0]] = 0
        while path and path[-1] in following:
            ahead = following[path[-1]].pop()
            if not following[path[-1]]:
                del following[path[-1]]
            if ahead in place:  # the path met itself: cut the loop off and go on with what is left
                start = place[ahead]
                loops.append(path[start:])
                for vertex in path[start + 1 :]:
                    del place[vertex]
                path = path[: start + 1]
                if start == 0 and path[0] not in following:
                    break
            else:
                place[ahead] = len(path)
                path.append(ahead)
        else:
            following.pop(path[-1], None)
    return loops


def _triangulate(loop, vertices, edges):
    """Triangles of least area that fill a loop; none if every filling would repeat an edge of the mesh."""
    n, points = len(loop), vertices[loop]
    taken = np.array(
        [[(min(a, b), max(a, b)) in edges for b in loop] for a in loop]  # the border's own edges are handled below
    )
    cost, choice = np.zeros((n, n)), np.zeros((n, n), int)
    for width in range(2, n):
        for i in range(n - width):
            k = i + width
            middle = np.arange(i + 1, k)
            cross = np.cross(points[middle] - points[i], points[k] - points[i])
            total = cost[i, middle] + cost[middle, k] + 0.5 * np.linalg.norm(cross, axis=-1)
            best = int(np.argmin(total))
            diagonal = not (i == 0 and k == n - 1)
            cost[i, k] = np.inf if diagonal and taken[i, k] else total[best]
            choice[i, k] = middle[best]
    if not np.isfinite(cost[0, n - 1]):
        return []
    triangles, stack = [], [(0, n - 1)]
    while stack:
        i, k = stack.pop()
        if k - i >= 2:
            j = int(choice[i, k])
            triangles.append([loop[i], loop[j], loop[k]])
            stack += [(i, j), (j, k)]
    return triangles
