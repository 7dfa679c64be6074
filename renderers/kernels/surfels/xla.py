"""Portable tiled compositing of surfels in plain XLA: any device, any float dtype.

Laid out as `kernels/composite/xla.py`: one tile at a time, its 256 pixels on the minor axis, surfels in chunks, front
to back in both directions. Pixels are counted from the tile's middle, which costs M less rounding. With A = 1 - T the
weight in front of a surfel and D that weight times depth, the backward pass's value of one more w_i is

    v_i = f_i . g + d_i g_depth + 2 g_distortion (d_i (2 A_i - A_total) + D_total - 2 D_i)

and the distortion, a quadratic form in the weights, enters the sum still to come, sum_{j > i} w_j v_j, by twice itself.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE
from renderers.kernels.composite.xla import drawn_pixels, to_tiles, untile
from renderers.kernels.surfels.reference import LOW_PASS, MEDIAN
from renderers.kernels.tiling import TILE, TileLists, grid

CHUNK = 16  # surfels blended per loop turn
GEOMETRY = 13  # M by rows (9), mean x y, opacity, depth; features follow in a row


def _rows(transforms, means2d, opacities, features, depths, lists):
    """Parameters of each intersection in list order, with room for the last chunk to read past the end."""
    columns = [transforms.reshape(-1, 9), means2d, opacities[:, None], depths[:, None], features]
    return jnp.pad(jnp.concatenate(columns, 1)[lists.ids], ((0, CHUNK), (0, 0)))


def _middle(tile, size, like):
    """Middle x, y of a tile, typed as `like`, a scalar, to vary over the same mesh axes under `shard_map`."""
    half = jnp.zeros_like(like) + TILE / 2
    columns = grid(size)[1]
    return tile % columns * TILE + half, tile // columns * TILE + half


def _pixels(like):
    """Pixel centres x, y [256] from a tile's middle."""
    index = jnp.arange(TILE * TILE, dtype=jnp.int32)
    shift = jnp.zeros_like(like) + 0.5 - TILE / 2
    return index % TILE + shift, index // TILE + shift


def _chunk(rows, start, end, middle):
    """Rows start .. start + CHUNK with pixels counted from the tile's middle, and which belong to the tile."""
    taken = lax.dynamic_slice_in_dim(rows, start, CHUNK)
    m_w = taken[:, 6:9]
    shifted = [
        taken[:, 0:3] - middle[0] * m_w,
        taken[:, 3:6] - middle[1] * m_w,
        m_w,
        taken[:, 9:11] - jnp.stack(middle)[None],
        taken[:, 11:],
    ]
    return jnp.concatenate(shifted, 1), (start + jnp.arange(CHUNK, dtype=jnp.int32) < end)[:, None]


def _intersect(chunk, pixels):
    """Plane coordinates u, v and zeta_3, offsets from the mean, which branch sigma is of, and sigma: [chunk, 256]."""
    x, y = pixels[0][None], pixels[1][None]
    m_u, m_v, m_w = chunk[:, 0:3], chunk[:, 3:6], chunk[:, 6:9]
    per_x, per_y, constant = jnp.cross(m_v, m_w), jnp.cross(m_w, m_u), jnp.cross(m_u, m_v)
    zeta = [per_x[:, k : k + 1] * x + per_y[:, k : k + 1] * y + constant[:, k : k + 1] for k in range(3)]
    meets = zeta[2] != 0
    z = jnp.where(meets, zeta[2], 1.0)
    u, v = zeta[0] / z, zeta[1] / z
    dx, dy = x - chunk[:, 9:10], y - chunk[:, 10:11]
    on_plane_sigma, filtered_sigma = 0.5 * (u * u + v * v), 0.5 * LOW_PASS * (dx * dx + dy * dy)
    on_plane = on_plane_sigma <= filtered_sigma
    sigma = jnp.where(on_plane, on_plane_sigma, filtered_sigma)
    return (u, v, z), (dx, dy), on_plane, jnp.where(meets, sigma, jnp.inf)


def _blend(chunk, inside, sigma, transmittance, alive):
    """Alpha before and after the clamp and the transmittance in front, [chunk, 256], and the state after the chunk."""
    raw = chunk[:, 11:12] * jnp.exp(-sigma)
    alpha = jnp.where(inside & (raw >= ALPHA_THRESHOLD), jnp.minimum(MAX_ALPHA, raw), 0.0)
    front = []
    for step in range(CHUNK):
        behind = transmittance * (1 - alpha[step])
        alive = alive & (behind > MIN_TRANSMITTANCE)
        front.append(jnp.where(alive, transmittance, 0.0))
        transmittance = jnp.where(alive, behind, transmittance)
    return raw, alpha, jnp.stack(front), transmittance, alive


def _exclusive_sums(terms, before):
    """Of each row of `terms` [chunk, 256], the sum of those in front of it, and the sum behind the last."""
    sums = []
    for step in range(CHUNK):
        sums.append(before)
        before = before + terms[step]
    return jnp.stack(sums), before


def forward(
    transforms: Float[Array, "n 3 3"],
    means2d: Float[Array, "n 2"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    depths: Float[Array, " n"],
    lists: TileLists,
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 4"]]:
    """Image without background; transmittance, depth, distortion and median depth. See `reference.composite`."""
    channels = features.shape[1]
    rows = _rows(transforms, means2d, opacities, features, depths, lists)
    pixels = _pixels(rows[0, 0])

    def tile_image(tile_and_drawn):
        tile, drawn = tile_and_drawn
        middle, end = _middle(tile, size, rows[0, 0]), lists.offsets[tile + 1]

        def body(carry):
            start, transmittance, alive, depth, distortion, median, image = carry
            chunk, inside = _chunk(rows, start, end, middle)
            sigma = _intersect(chunk, pixels)[3]
            _, alpha, front, transmittance, alive = _blend(chunk, inside, sigma, transmittance, alive)
            weights, centres = alpha * front, chunk[:, 12:13]
            in_front, depth = _exclusive_sums(weights * centres, depth)
            distortion = distortion + 2 * (weights * (centres * (1 - front) - in_front)).sum(0)
            for step in range(CHUNK):
                median = jnp.where((weights[step] > 0) & (front[step] > MEDIAN), centres[step], median)
            image = image + lax.dot(chunk[:, GEOMETRY:].T, weights, precision=lax.Precision.HIGHEST)
            return start + CHUNK, transmittance, alive, depth, distortion, median, image

        zero = jnp.zeros_like(pixels[0])
        empty = jnp.zeros_like(zero, shape=(channels, TILE * TILE))
        state = (lists.offsets[tile], zero + 1, drawn & (zero == 0), zero, zero, zero, empty)
        _, transmittance, _, depth, distortion, median, image = lax.while_loop(_going_on(end), body, state)
        return jnp.concatenate([image, jnp.stack([transmittance, depth, distortion, median])])

    tiles = lax.map(tile_image, (jnp.arange(lists.offsets.shape[0] - 1, dtype=jnp.int32), drawn_pixels(mask, size)))
    whole = untile(tiles, size)
    return whole[..., :channels], whole[..., channels:]


def _going_on(end):
    """Whether a tile's run has not ended and some pixel has not stopped."""
    return lambda carry: (carry[0] < end) & jnp.any(carry[2])


def backward(
    transforms: Float[Array, "n 3 3"],
    means2d: Float[Array, "n 2"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    depths: Float[Array, " n"],
    lists: TileLists,
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w 4"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w 4"]],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Array, ...]:
    """Gradients of transforms, means2d, opacities, features and depths, and the absolute-valued one of means2d."""
    n, channels = features.shape
    rows = _rows(transforms, means2d, opacities, features, depths, lists)
    pixels = _pixels(rows[0, 0])
    moments = jnp.stack([pixels[0], pixels[1], jnp.ones_like(pixels[0])], -1)
    per_pixel = to_tiles(jnp.concatenate([cotangents[0], _pixel_terms(outputs, cotangents)], -1))
    width = GEOMETRY + channels + 2

    def tile_gradient(gradient, tile_and_pixels):
        tile, drawn, terms = tile_and_pixels
        middle, end = _middle(tile, size, rows[0, 0]), lists.offsets[tile + 1]
        g, (to_come, per_depth, bend, depth_to_come, g_median) = terms[:channels], terms[channels:]
        per_depth, bend = per_depth[None], bend[None]

        def body(carry):
            start, transmittance, alive, to_come, depth_to_come, median_row, gradient = carry
            chunk, inside = _chunk(rows, start, end, middle)
            (u, v, z), offset, on_plane, sigma = _intersect(chunk, pixels)
            raw, alpha, front, transmittance, alive = _blend(chunk, inside, sigma, transmittance, alive)
            weights, centres = alpha * front, chunk[:, 12:13]
            in_front, passed = _exclusive_sums(2 * bend * weights * centres, jnp.zeros_like(to_come))
            value = lax.dot(chunk[:, GEOMETRY:], g, precision=lax.Precision.HIGHEST)
            value = value + centres * (per_depth - 2 * bend * front) + (depth_to_come[None] - in_front)
            seen, passed_value = _exclusive_sums(weights * value, jnp.zeros_like(to_come))
            behind = to_come[None] - (seen + weights * value)
            for step in range(CHUNK):
                is_median = (weights[step] > 0) & (front[step] > MEDIAN)
                median_row = jnp.where(is_median, start + step, median_row)
            # -dL / dsigma: zero where alpha is clamped or dropped, or the pixel has stopped
            moved = (alpha > 0) & (front > 0) & (raw <= MAX_ALPHA)
            m = jnp.where(moved, alpha * (front * value - behind / (1 - alpha)), 0.0)
            columns = _columns(chunk, inside, m, (u, v, z), offset, on_plane, moments, middle)
            g_depths = (weights * (per_depth - bend * (front + front * (1 - alpha)))).sum(1)
            g_features = lax.dot(weights, g.T, precision=lax.Precision.HIGHEST)
            new = jnp.concatenate([columns[:, :12], g_depths[:, None], g_features, columns[:, 12:]], 1)
            # the chunk may reach into the next tile's run: leave those rows as they are
            new = jnp.where(inside, new, lax.dynamic_slice_in_dim(gradient, start, CHUNK))
            gradient = lax.dynamic_update_slice_in_dim(gradient, new, start, 0)
            left = to_come - passed_value, depth_to_come - passed
            return start + CHUNK, transmittance, alive, *left, median_row, gradient

        one = jnp.ones_like(to_come)
        nowhere = jnp.zeros_like(to_come, jnp.int32) - 1
        state = (lists.offsets[tile], one, drawn & (one > 0), to_come, depth_to_come, nowhere, gradient)
        *_, median_row, gradient = lax.while_loop(_going_on(end), body, state)
        return gradient, (median_row, jnp.where(median_row >= 0, g_median, 0.0))

    empty = jnp.zeros_like(rows, shape=(rows.shape[0], width))
    tiles = jnp.arange(lists.offsets.shape[0] - 1, dtype=jnp.int32)
    per_row, medians = lax.scan(tile_gradient, empty, (tiles, drawn_pixels(mask, size), per_pixel))
    per_surfel = jnp.zeros_like(rows, shape=(n, width)).at[lists.ids].add(per_row[:-CHUNK])
    transform, mean, opacity, depth, feature, probe = jnp.split(per_surfel, (9, 11, 12, 13, 13 + channels), 1)
    depth = depth[:, 0].at[lists.ids[jnp.maximum(medians[0], 0)]].add(medians[1])
    return transform.reshape(n, 3, 3), mean, opacity[:, 0], feature, depth, probe


def _pixel_terms(outputs, cotangents):
    """What the walk needs of each pixel, [h, w, 5].

    The sum of w v still to come; the value of a surfel per unit of its depth where nothing is in front, its loss by the
    weight in front being twice the third, 2 g_distortion; depth times that, still to come; the median's cotangent.
    """
    (image, planes), (g_image, g_planes) = outputs, cotangents
    transmittance, depth, distortion = planes[..., 0], planes[..., 1], planes[..., 2]
    g_transmittance, g_depth, g_distortion, g_median = (g_planes[..., k] for k in range(4))
    to_come = jnp.sum(image * g_image, -1) + transmittance * g_transmittance + depth * g_depth
    to_come = to_come + 2 * distortion * g_distortion
    bend = 2 * g_distortion
    return jnp.stack([to_come, g_depth + bend * (1 + transmittance), bend, bend * depth, g_median], -1)


def _columns(chunk, inside, m, intersection, offset, on_plane, moments, middle):
    """Gradient columns from m = -dL / dsigma: M (9), mean (2), opacity, and the absolute-valued mean (2)."""
    u, v, z = intersection
    by_plane = jnp.where(on_plane, m / z, 0.0)
    u, v = jnp.where(on_plane, u, 0.0), jnp.where(on_plane, v, 0.0)
    g_zeta = (-by_plane * u, -by_plane * v, by_plane * (u * u + v * v))
    sums = jnp.stack([lax.dot(g, moments, precision=lax.Precision.HIGHEST) for g in g_zeta], 1)
    per_x, per_y, constant = sums[..., 0], sums[..., 1], sums[..., 2]
    m_u, m_v, m_w = chunk[:, 0:3], chunk[:, 3:6], chunk[:, 6:9]
    g_u = jnp.cross(per_y, m_w) + jnp.cross(m_v, constant)
    g_v = jnp.cross(m_w, per_x) + jnp.cross(constant, m_u)
    g_w = jnp.cross(per_x, m_v) + jnp.cross(m_u, per_y) - middle[0] * g_u - middle[1] * g_v
    filtered = jnp.where(on_plane, 0.0, LOW_PASS * m)
    gx, gy = filtered * offset[0], filtered * offset[1]
    opacity = jnp.where(inside[:, 0], chunk[:, 11], 1.0)
    g_opacity = m.sum(1) / jnp.where(opacity > 0, opacity, 1.0)
    columns = [gx.sum(1), gy.sum(1), g_opacity, jnp.abs(gx).sum(1), jnp.abs(gy).sum(1)]
    return jnp.concatenate([g_u, g_v, g_w, jnp.stack(columns, 1)], 1)
