"""Named calls of real size, for tests and benchmarks: meshes of `triangle_raster.shapes` and channels to blend."""

import dataclasses

from renderers.kernels.triangle_raster import shapes as meshes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A mesh with its image, and what is blended.

    Attributes:
      mesh: and the image's size.
      channels: of colour, besides the mask.
    """

    mesh: meshes.Shape
    channels: int


MASK_100K = Shape(mesh=meshes.FACES_100K, channels=0)  # what `rasterize_mesh` asks for
COLORS_100K = Shape(mesh=meshes.FACES_100K, channels=4)  # what a picture asks for
SHAPES = {"mask_100k": MASK_100K, "colors_100k": COLORS_100K}
