"""Fitting a radiance field to a capture: rays, training step, evaluation, surface, results. `fit_field` wires them."""
