"""Cameras: the record, lens distortion, rays, rigid poses, camera paths and other programs' conventions."""
