"""Meshes fitted to images: targets, the fit, textures, results."""
