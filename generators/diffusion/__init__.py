"""Diffusion processes: schedules, predictions and their conversions, guidance, samplers, losses."""
