"""Bilinear samples of feature planes: PyTorch's grid_sample with zero padding and align_corners False.

Notation: p planes of h x w texels with c channels; n coordinates (u, v) in [-1, 1] a plane, u along the width and v
along the height, so that the planes' edges, not the centres of their outer texels, lie at -1 and 1. In texels
x = ((u + 1) w - 1) / 2; the four texels around it are weighted bilinearly, and texels outside the plane are zero.

As in `kernels.hash_encode`, three sums (gather, scatter, contract) with the weights or with their derivative along a
direction are all derivatives to the second order.
"""
