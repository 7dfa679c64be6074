"""Which triangle each pixel sees: a z-buffer along the pixels' own rays, for any lens.

Notation: points P = (x, y, z) in the camera's frame; a pixel's ray d; a face's corners P_0, P_1, P_2; (i, j, k) a
rotation of (0, 1, 2). Sheared along the ray, every corner becomes a point p of a plane in which the ray is the origin:

    perspective  p = (x - dx z, y - dy z),  ray (dx, dy, 1)
    parallel     p = (x - X, y - Y),  the ray runs along z through (X, Y)
    spherical    p = (x_a - d_a / d_c x_c, x_b - d_b / d_c x_c),  c the axis of the ray's largest component

The ray meets the face's plane at sum b_i P_i with b_i = p_j x p_k / sum, so that the face is hit where the three cross
products have one sign; zero counts for either. Nothing is divided by a depth: corners behind the camera need no
clipping, the hit itself is kept or dropped by its depth. Two faces with an edge in common take the cross product of the
same two points in opposite order, and a product is compared with a product (never their difference with zero): rounding
cannot open a gap between them (Woop, Benthin, Wald, "Watertight Ray/Triangle Intersection", JCGT 2013).
The nearest hit wins, the lower index among equals. Nearness is the camera's z; along spherical rays the distance.
"""
