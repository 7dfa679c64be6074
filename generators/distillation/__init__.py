"""Score distillation: gradients for a rendered image or latent out of a frozen denoiser that never sees the scene."""
