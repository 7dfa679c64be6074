"""Fitting Gaussians to a capture: scene set-up, training step, evaluation, results. `fit_gaussians` wires them."""
