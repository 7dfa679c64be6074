"""Compositing at positions of the caller's choice, and which Gaussians contribute: `kernels.composite` off its lattice.

Notation of `kernels.composite`, and: m samples, each a continuous position (x, y) in pixels (centres at +0.5); g groups
of p samples that lie in one tile and are walked together; k contributors kept. Equations and thresholds are the same,
with d = position - mean. Only tiles that hold samples are binned, sorted and walked: the cost follows the samples, not
the image.
"""
