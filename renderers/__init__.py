"""Scene representations to images: cameras, Gaussians, meshes, volumes, and what is measured on the result.

Legend of shapes (jaxtyping names) that holds in the whole package:
    n points or Gaussians, r rays, s samples along a ray, v views or mesh vertices, f faces, k coefficients,
    h w image rows and columns, c channels. `*n` stands for any leading axes. Functions take one instance; batch
    with `jax.vmap` unless the signature shows `*n` or `*batch`.

Conventions:
    World: right-handed, +Y up, the front of an asset faces +Z, metres. A capture keeps its own frame.
    Camera: OpenCV, x right, y down, z forward. Matrices are named `a_from_b` and map b to a, points as columns.
    Pixels: (column, row), the first pixel's centre is (0.5, 0.5). Sizes are `(height, width)`.
    Depth: camera-frame z. Quaternions: wxyz. Angles: radians.
    Colour: linear or display values in float, [0, 1] unless a function says otherwise.
    Numbers: float32 in gives float32 out, also where `jax_enable_x64` is on; float64 in gives float64 out.
    Poses: gradients to `camera_from_world` are with respect to its raw upper 3x4 entries; the last row is never read.

Import the module that is needed, `from renderers.cameras.camera import Camera`; the packages re-export nothing.
"""
