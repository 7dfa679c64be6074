"""Front-to-back alpha compositing of 2D Gaussians (arXiv 2308.04079, Eq. 3).

Notation: n Gaussians, c feature channels, h w image, m intersections; `alpha` opacity of a Gaussian at a pixel, `T`
transmittance in front of it, `w = alpha T` its weight, `g` cotangents of the output. For Gaussian i in depth order

    sigma_i = (a dx^2 + c dy^2) / 2 + b dx dy          conic (a, b, c), d = pixel - mean
    alpha_i = min(0.99, opacity_i exp(-sigma_i))        dropped below 1/255 or where sigma_i < 0
    image   = sum_i f_i alpha_i T_i,   T_{i+1} = T_i (1 - alpha_i),   T_1 = 1

and a pixel stops before the Gaussian that would leave it T <= 1e-4. The thresholds are gsplat 1.6.0's.
"""
