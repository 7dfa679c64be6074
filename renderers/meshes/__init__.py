"""Triangle meshes: records, differentiable rasterization, shading, operations, files, metrics."""
