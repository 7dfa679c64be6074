"""Mesh files on disk, one or more modules a format: glTF 2.0 (.glb, .gltf), Wavefront (.obj with .mtl), PLY.

Everything is NumPy until the last lines of a reader; what leaves is float32 and int32. Inside, `Damaged` says what is
wrong with a file; the front door (`renderers.meshes.formats`) adds the file's name and raises FormatError.
"""
