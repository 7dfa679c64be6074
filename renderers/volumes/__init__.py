"""Radiance and density along rays: where samples go, what they weigh, and what a ray sees.

`step_functions` and `spacing` are about one ray's axis, `samplers` and `occupancy` put samples on it, `quadrature` (and
`packed`, for samples of all rays in one buffer) turns densities or signed distances into weights and sums, `render`
joins them to a field. Legend of shapes: r rays, s samples of a ray, e = s + 1 edges, m samples of all rays together.
"""
