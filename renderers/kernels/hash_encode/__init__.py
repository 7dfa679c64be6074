"""Multiresolution hash encoding (Mueller et al. 2022, arXiv 2201.05989) and dense grids: trilinear features of points.

Notation: n points x in [0, 1]^3; l levels, each a lattice of (nx, ny, nz) vertices that spans the cube, borders
included; t rows of the table, the levels' rows one after the other; f features a row; c one of the eight vertices
around a point with trilinear weight w_c. The encoding of a level is sum_c w_c(x) table[row_c(x)].

Everything is linear in the table and multilinear in the position inside a cell, so that three sums with weights w, or
with their derivative v . dw along a direction v, make up all derivatives to the second order:
    gather    sum_c w_c table[row_c]                          the encoding; along v its derivative by x
    scatter   rows of sum over points of w_c g                the table's gradient
    contract  sum over levels, c of (g . table[row_c]) dw_c   the points' gradient

Conventions: a level's resolution is its number of vertices along an axis, ceil(base growth^l), and its cells are that
less one, as in tiny-cuda-nn, whose shift by half a cell is left out: its outermost half cells wrap around to the other
side of the cube. Lattices of different levels still share no vertices but accidentally. A level whose vertices fit its
rows is dense, row x + nx (y + ny z); others hash with the primes of the paper, (x ^ 2654435761 y ^ 805459861 z) in 32
bits, modulo a power of two.
"""
