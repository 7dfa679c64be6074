"""Portable tiled compositing in plain XLA: any device, any float dtype.

One tile at a time, its 256 pixels on the minor axis, Gaussians in chunks, until the run ends or every pixel has
stopped. Walking one tile at a time beats batching tiles on CPUs (it stays in cache and keeps the early exit). The
backward pass walks front to back as well: with S the part of the output's inner product that is still to come,

    S_i = sum_{j > i} w_j v_j + T_final g_T,   v_i = f_i . g,   dL / dalpha_i = T_i v_i - S_i / (1 - alpha_i),

S starts at image . g + T_final g_T and loses w_i v_i at each step, so that no order is stored and no T is divided back.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE
from renderers.kernels.tiling import TILE, TileLists, grid

CHUNK = 16  # Gaussians blended per loop turn
GEOMETRY = 6  # mean x y, conic xx xy yy, opacity; features follow in a row


def _rows(means2d, conics, opacities, features, lists):
    """Parameters of each intersection in list order, with room for the last chunk to read past the end."""
    packed = jnp.concatenate([means2d, conics, opacities[:, None], features], 1)[lists.ids]
    return jnp.pad(packed, ((0, CHUNK), (0, 0)))


def drawn_pixels(mask: Bool[Array, "h w"] | None, size: tuple[int, int]) -> Bool[Array, "t p"]:
    """Which pixels of each tile lie in the image and are not masked off."""
    mask = jnp.ones(size, bool) if mask is None else mask
    return to_tiles(mask[..., None])[:, 0]


def _tile_pixels(tile, size, like):
    """Pixel centres x, y of a tile, each [256].

    Typed as `like`, a scalar: loop states that start from these must vary over the same mesh axes under `shard_map`.
    """
    half = jnp.zeros_like(like) + 0.5
    columns = grid(size)[1]
    index = jnp.arange(TILE * TILE, dtype=jnp.int32)
    x = tile % columns * TILE + index % TILE
    y = tile // columns * TILE + index // TILE
    return x + half, y + half


def _blend_chunk(rows, inside, pixels, transmittance, alive):
    """Alphas and weights of a chunk at a tile's pixels, all [chunk, 256], and the state after it."""
    dx = pixels[0][None] - rows[:, 0:1]
    dy = pixels[1][None] - rows[:, 1:2]
    sigma = 0.5 * (rows[:, 2:3] * dx * dx + rows[:, 4:5] * dy * dy) + rows[:, 3:4] * dx * dy
    raw = rows[:, 5:6] * jnp.exp(-jnp.maximum(sigma, 0.0))
    alpha = jnp.minimum(MAX_ALPHA, raw)
    alpha = jnp.where(inside & (sigma >= 0) & (alpha >= ALPHA_THRESHOLD), alpha, 0.0)
    front = []
    for step in range(CHUNK):  # a running product, unrolled: XLA's cumulative product is slower by half
        behind = transmittance * (1 - alpha[step])
        alive = alive & (behind > MIN_TRANSMITTANCE)
        front.append(jnp.where(alive, transmittance, 0.0))
        transmittance = jnp.where(alive, behind, transmittance)
    front = jnp.stack(front)  # zero where the pixel has stopped, so that weights and gradients vanish there
    return dx, dy, raw, alpha, front, transmittance, alive


def _chunk(rows, start, end):
    """Rows start .. start + CHUNK, and which of them belong to the tile."""
    taken = lax.dynamic_slice_in_dim(rows, start, CHUNK)
    return taken, (start + jnp.arange(CHUNK, dtype=jnp.int32) < end)[:, None]


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Image without background and transmittance left; see `reference.composite`."""
    channels = features.shape[1]
    rows = _rows(means2d, conics, opacities, features, lists)
    drawn = drawn_pixels(mask, size)

    def tile_image(tile_and_drawn):
        tile, in_image = tile_and_drawn
        pixels, end = _tile_pixels(tile, size, rows[0, 0]), lists.offsets[tile + 1]

        def body(carry):
            start, transmittance, alive, image = carry
            chunk, inside = _chunk(rows, start, end)
            _, _, _, alpha, front, transmittance, alive = _blend_chunk(chunk, inside, pixels, transmittance, alive)
            weights = alpha * front
            image = image + lax.dot(chunk[:, GEOMETRY:].T, weights, precision=lax.Precision.HIGHEST)
            return start + CHUNK, transmittance, alive, image

        state = (
            lists.offsets[tile],
            jnp.ones_like(pixels[0]),
            in_image & (pixels[0] > 0),
            jnp.zeros_like(pixels[0], shape=(channels, TILE * TILE)),
        )
        _, transmittance, _, image = lax.while_loop(lambda c: (c[0] < end) & jnp.any(c[2]), body, state)
        return jnp.concatenate([image, transmittance[None]])

    tiles = lax.map(tile_image, (jnp.arange(lists.offsets.shape[0] - 1, dtype=jnp.int32), drawn))
    whole = untile(tiles, size)
    return whole[..., :-1], whole[..., -1]


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "n 2"], Float[Array, "n 3"], Float[Array, " n"], Float[Array, "n c"], Float[Array, "n 2"]]:
    """Gradients of means2d, conics, opacities and features, and the absolute-valued gradient of means2d."""
    n, channels = features.shape
    rows = _rows(means2d, conics, opacities, features, lists)
    (image, transmittance), (g_image, g_transmittance) = outputs, cotangents
    to_come = jnp.sum(image * g_image, -1) + transmittance * g_transmittance
    per_tile = to_tiles(jnp.concatenate([g_image, to_come[..., None]], -1))
    width = GEOMETRY + channels + 2

    def tile_gradient(gradient, tile_and_pixels):
        tile, in_image, g_and_to_come = tile_and_pixels
        pixels, end = _tile_pixels(tile, size, rows[0, 0]), lists.offsets[tile + 1]
        g = g_and_to_come[:channels]

        def body(carry):
            start, transmittance, alive, to_come, gradient = carry
            chunk, inside = _chunk(rows, start, end)
            dx, dy, raw, alpha, front, transmittance, alive = _blend_chunk(chunk, inside, pixels, transmittance, alive)
            weights = alpha * front
            value = lax.dot(chunk[:, GEOMETRY:], g, precision=lax.Precision.HIGHEST)
            behind = []
            for step in range(CHUNK):
                to_come = to_come - weights[step] * value[step]
                behind.append(to_come)
            # dL / dsigma with its sign turned; zero where alpha is clamped, dropped or the pixel has stopped
            moved = (alpha > 0) & (front > 0) & (raw <= MAX_ALPHA)
            m = jnp.where(moved, alpha * (front * value - jnp.stack(behind) / (1 - alpha)), 0.0)
            gx = m * (chunk[:, 2:3] * dx + chunk[:, 3:4] * dy)
            gy = m * (chunk[:, 3:4] * dx + chunk[:, 4:5] * dy)
            opacity = jnp.where(inside[:, 0], chunk[:, 5], 1.0)
            columns = [
                gx.sum(1),
                gy.sum(1),
                -0.5 * (m * dx * dx).sum(1),
                -(m * dx * dy).sum(1),
                -0.5 * (m * dy * dy).sum(1),
                m.sum(1) / jnp.where(opacity > 0, opacity, 1.0),
                *lax.dot(g, weights.T, precision=lax.Precision.HIGHEST),
                jnp.abs(gx).sum(1),
                jnp.abs(gy).sum(1),
            ]
            # the chunk may reach into the next tile's run: leave those rows as they are
            old = lax.dynamic_slice_in_dim(gradient, start, CHUNK)
            new = jnp.where(inside, jnp.stack(columns, 1), old)
            return (
                start + CHUNK,
                transmittance,
                alive,
                to_come,
                lax.dynamic_update_slice_in_dim(gradient, new, start, 0),
            )

        state = (
            lists.offsets[tile],
            jnp.ones_like(pixels[0]),
            in_image & (pixels[0] > 0),
            g_and_to_come[channels],
            gradient,
        )
        return lax.while_loop(lambda c: (c[0] < end) & jnp.any(c[2]), body, state)[4], None

    empty = jnp.zeros_like(rows, shape=(rows.shape[0], width))
    tiles = jnp.arange(lists.offsets.shape[0] - 1, dtype=jnp.int32)
    per_row, _ = lax.scan(tile_gradient, empty, (tiles, drawn_pixels(mask, size), per_tile))
    per_gaussian = jnp.zeros_like(rows, shape=(n, width)).at[lists.ids].add(per_row[:-CHUNK])
    means, conics_, opacity, feature, probe = jnp.split(per_gaussian, (2, 5, 6, 6 + channels), 1)
    return means, conics_, opacity[:, 0], feature, probe


def to_tiles(image: Shaped[Array, "h w c"]) -> Shaped[Array, "t c p"]:
    """Cut an image into tiles, pixels minor, padding the right and lower edge with zeros."""
    height, width, channels = image.shape
    rows, columns = grid((height, width))
    padded = jnp.pad(image, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)))
    return (
        padded.reshape(rows, TILE, columns, TILE, channels)
        .transpose(0, 2, 4, 1, 3)
        .reshape(rows * columns, channels, TILE * TILE)
    )


def untile(tiles: Float[Array, "t c p"], size: tuple[int, int]) -> Float[Array, "h w c"]:
    """Inverse of `to_tiles`."""
    rows, columns = grid(size)
    channels = tiles.shape[1]
    image = tiles.reshape(rows, columns, channels, TILE, TILE).transpose(0, 3, 1, 4, 2)
    return image.reshape(rows * TILE, columns * TILE, channels)[: size[0], : size[1]]
