"""Gaussian splatting: a scene as a set of anisotropic 3D Gaussians, rendered by rasterization.

Notation: n Gaussians, k spherical-harmonic coefficients a channel, c channels, h w image.
"""
