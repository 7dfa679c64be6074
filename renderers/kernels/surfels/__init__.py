"""Front-to-back compositing of 2D Gaussian surfels (arXiv 2403.17888), with gsplat 1.6.0's constants.

Notation: n surfels, c feature channels, h w image, m intersections of boxes with tiles. A surfel is a Gaussian on a
plane; M (rows M_u, M_v, M_w) takes its plane's coordinates (u, v, 1) to the pixel (x w, y w, w). The ray through pixel
(x, y) is where two planes meet, which in the surfel's frame are h_u and h_v (Eqs. 8-10):

    h_u = x M_w - M_u,   h_v = y M_w - M_v,   zeta = h_u x h_v,   (u, v) = (zeta_1, zeta_2) / zeta_3
    sigma = min(u^2 + v^2, 2 |mean - pixel|^2) / 2        the second is the low-pass filter, Eq. 11

zeta is affine in the pixel: zeta = x (M_v x M_w) + y (M_w x M_u) + M_u x M_v, which is what the fast backends evaluate.
From sigma on it is the compositing of 3D Gaussians (`kernels/composite`), w = alpha T, with three images more, d being
the depth of the surfel's centre:

    depth = sum_i w_i d_i,   median depth = d of the last drawn surfel that T > 1/2 reached (0 where there is none)
    distortion = 2 sum_{j < i} w_i w_j (d_i - d_j)        Eq. 13 with L1 distances, in depth order

A surfel is drawn only in the 16-pixel tiles that its box meets, and that box holds 3.33 standard deviations on the
plane but not the low-pass filter: images of small surfels depend on the tiles, as gsplat's do.
"""
