"""Steps along rays that fall into occupied cells, gathered into one buffer for all rays.

Notation: r rays, s the most steps a ray can have, m places in the buffer, l levels of x * y * z cells. Step k of a ray
fills [t[k], t[k + 1]]; t[0] is given and t[k + 1] = t[k] + clip(cone * t[k], shortest, longest). It is taken if its
middle lies before the ray's end, inside the boxes and in an occupied cell of the finest level whose box holds it. Level
0 fills the box given, level l a box 2^l times as large about the same centre. Indices only: nothing is differentiated.
"""
