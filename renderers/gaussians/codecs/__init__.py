"""Splat files on disk, one module a format: each has `read(path)` and `write(path, gaussians)`.

Legend: n Gaussians, k = (degree + 1)^2 spherical-harmonic coefficients. Everything is NumPy until the last line of a
reader; the record that leaves is float32.
"""
