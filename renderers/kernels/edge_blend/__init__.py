"""What the outlines of a mesh change in an image of hard pixels: exact areas, and colours blended by them.

Notation: an edge of a face is on an outline where the camera sees both of its faces to one side, or where it has one.
In the image it is a segment with the surface S to its left (pixel axes: x right, y down), cut into a piece for each
pixel that it touches. A piece from a to b, relative to the centre c, changes the pixel's share of S by A(a, b), the
polynomial of `coverage`: [c in S] + sum of A is the exact area of S in the pixel.

    mask_p   <- mask_p + sum A
    color_p  <- color_p + sum A (color_inner - color_outer)

over the pieces that can be seen (`visibility`), to the mask where what lies behind them is empty. The inner and outer
colours are those of p itself and of its neighbour across the edge.
"""
