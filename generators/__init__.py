"""Learned priors over images, views and 3D tokens, and what is distilled from them. No renderer, no training loop.

Legend of shapes (jaxtyping names) that holds in the whole package:
    b examples, v views of one object, h w image rows and columns, c channels, n tokens, d features, l words.

Conventions:
    Images are channels last, in [-1, 1] where a model sees them. Cameras come as plain arrays: `camera_from_world`,
    OpenCV axes, a world with +Y up and the object's front on +Z. Noise: `z_t = alpha(t) x_0 + sigma(t) eps`.

Import the module that is needed; the packages re-export nothing.
"""
