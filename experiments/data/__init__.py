"""Captures and other data sets: from folders that users have to arrays that experiments train on.

Legend: v views, p points, h w image. `size = (height, width)`. Cameras are OpenCV (x right, y down, z forward), pixel
centres at +0.5. A capture keeps the world frame of its own poses.
"""
