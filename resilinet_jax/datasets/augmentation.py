"""Random rotation, shift and flip of images, inside the compiled program.

dm-pix has the pieces; its affine transform interpolates over the colours as well and took 44 ms for 128 images of
32x32 on two cores, against 0.9 ms here (`python -m benchmarks.augmentation`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

ROTATION = 30.0  # degrees to either side
SHIFT = 0.2  # of the size, to either side


def random_affine(
    key: Key[Array, ""], images: Num[Array, "batch height width channels"]
) -> Float[Array, "batch height width channels"]:
    """Each image rotated by up to 30°, shifted by up to 20 %, and flipped left to right or not.

    Uniform in each, independently; bilinear; what comes in from outside repeats the edge, as in Keras.

    Args:
      key: of the step; an image's place in the batch decides the rest.
      images: pixels of any type.

    Source: Yousefpour et al. 2020 names the three; the numbers are those of the authors' Keras code.
    """
    draws = jax.random.uniform(key, (4, images.shape[0]))
    angle, down, right = (2 * draws[:3] - 1) * jnp.array([[jnp.deg2rad(ROTATION)], [SHIFT], [SHIFT]])
    return affine(images, angle, down * images.shape[1], right * images.shape[2], draws[3] < 0.5)


def affine(
    images: Num[Array, "batch height width channels"],
    angle: Float[Array, " batch"],
    down: Float[Array, " batch"],
    right: Float[Array, " batch"],
    flip: Array,
) -> Float[Array, "batch height width channels"]:
    """Each image flipped where `flip` is set, then rotated about its middle, then shifted.

    Args:
      images: pixels of any type.
      angle: in radians, clockwise as seen.
      down: how far to move it, in pixels.
      right: the same to the right.
      flip: booleans, one per image.
    """
    batch, height, width, _ = images.shape
    middle = (height - 1) / 2, (width - 1) / 2
    each = lambda values: values[:, None, None]  # noqa: E731
    # Where each pixel of the result comes from: the moves undone in reverse order.
    y = jnp.arange(height)[None, :, None] - middle[0] - each(down)
    x = jnp.arange(width)[None, None, :] - middle[1] - each(right)
    cos, sin = each(jnp.cos(angle)), each(jnp.sin(angle))
    y, x = cos * y - sin * x, sin * y + cos * x
    x = jnp.where(each(flip), -x, x)
    y, x = jnp.clip(y + middle[0], 0, height - 1), jnp.clip(x + middle[1], 0, width - 1)
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    bottom, beyond = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    below, aside = (y - top)[..., None], (x - left)[..., None]
    number = jnp.arange(batch)[:, None, None]

    def row(rows: Array) -> Array:
        near, far = (images[number, rows, columns].astype(jnp.float32) for columns in (left, beyond))
        return near * (1 - aside) + far * aside

    return row(top) * (1 - below) + row(bottom) * below
