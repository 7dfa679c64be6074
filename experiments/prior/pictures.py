"""Contact sheets of generated and of rendered rings."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_LINE = 14  # pixels of a caption's line
_GAP = 8


def contact_sheet(
    rings: np.ndarray, captions: Sequence[str], *, columns: int = 2, zoom: int = 2, normals: bool = True
) -> np.ndarray:
    """Rings under their captions: the views' colours, then their normals; uint8 [h, w, 3].

    Args:
      rings: channels [n, v, h, w, 8] in [-1, 1], see `experiments.data.blocks.rendering`.
      captions: one each.
      columns: rings beside each other.
      zoom: pixels of the sheet along a pixel's side.
      normals: whether to show them.
    """
    n, v, h, w, _ = rings.shape
    width, height = v * w * zoom * (2 if normals else 1), h * zoom + _LINE
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, -(-n // columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (ring, caption) in enumerate(zip(rings, captions, strict=True)):
        shown = [*(0.5 * ring[..., :3] + 0.5)]
        if normals:
            shown += [*(0.5 * ring[..., 3:6] * np.array([1.0, -1.0, -1.0]) + 0.5)]  # up is green, towards us is blue
        strip = Image.fromarray((np.clip(np.concatenate(shown, axis=1), 0, 1) * 255 + 0.5).astype(np.uint8))
        x, y = (i % columns) * (width + _GAP), (i // columns) * height
        pen.text((x, y), caption, fill="black")
        sheet.paste(strip.resize((width, h * zoom), Image.Resampling.NEAREST), (x, y + _LINE))
    return np.asarray(sheet)
