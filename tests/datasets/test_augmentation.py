import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resilinet_jax.datasets.augmentation import ROTATION, SHIFT, affine, random_affine

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 6, 9, 3)).astype(np.uint8)


# Eagerly, each of their operations would be compiled by itself.
compiled_affine, compiled_random_affine = jax.jit(affine), jax.jit(random_affine)


def moved(images=PIXELS, angle=0.0, down=0.0, right=0.0, flip=False):
    each = lambda value: jnp.full(len(images), value)  # noqa: E731
    return np.asarray(compiled_affine(jnp.asarray(images), each(angle), each(down), each(right), each(flip)))


def test_whole_pixels_move_as_numpy_moves_them():
    np.testing.assert_array_equal(moved(), PIXELS)
    np.testing.assert_array_equal(moved(flip=True), PIXELS[:, :, ::-1])
    expected = np.concatenate([PIXELS[:, :1], PIXELS[:, :1], PIXELS[:, :-2]], 1)  # the edge is repeated
    np.testing.assert_array_equal(moved(down=2.0), expected)
    expected = np.concatenate([PIXELS[:, :, 1:], PIXELS[:, :, -1:]], 2)
    np.testing.assert_array_equal(moved(right=-1.0), expected)
    # First flipped, then shifted.
    np.testing.assert_array_equal(moved(flip=True, right=1.0)[:, :, 1:], PIXELS[:, :, ::-1][:, :, :-1])


def test_half_a_pixel_is_the_mean_of_two():
    got = moved(down=0.5)[:, 1:]
    np.testing.assert_allclose(got, (PIXELS[:, 1:].astype(float) + PIXELS[:, :-1]) / 2)


def test_rotation_is_pillows():
    square = RNG.integers(0, 256, (1, 11, 11, 3)).astype(np.uint8)
    np.testing.assert_allclose(moved(square, angle=np.pi / 2), np.rot90(square, -1, (1, 2)), atol=1e-3)
    # A smooth picture, away from the edge, where Pillow has nothing to repeat.
    y, x = np.mgrid[:33, :33]
    smooth = np.stack([100 + 3 * y, 100 + 3 * x, 40 + 2 * y + 2 * x], -1).astype(np.uint8)[None]
    turned = Image.fromarray(smooth[0]).rotate(-20, Image.Resampling.BILINEAR)
    got = moved(smooth, angle=np.deg2rad(20))
    np.testing.assert_allclose(got[0, 8:-8, 8:-8], np.asarray(turned, float)[8:-8, 8:-8], atol=1.5)


def test_draws_are_the_keys_own_and_within_bounds(monkeypatch):
    asked = {}

    def record(images, angle, down, right, flip):
        asked.update(angle=jnp.rad2deg(angle), down=down / images.shape[1], right=right / images.shape[2], flip=flip)
        return images

    monkeypatch.setattr("resilinet_jax.datasets.augmentation.affine", record)
    asked = jax.jit(lambda key: (random_affine(key, jnp.zeros((4000, 10, 20, 3))), asked)[1])(jax.random.key(0))
    for name, bound in (("angle", ROTATION), ("down", SHIFT), ("right", SHIFT)):
        assert np.abs(asked[name]).max() == pytest.approx(bound, rel=0.01)
        assert abs(asked[name].mean()) < 0.05 * bound
    assert np.mean(asked["flip"]) == pytest.approx(0.5, abs=0.05)
    assert abs(np.corrcoef(asked["down"], asked["right"])[0, 1]) < 0.05


def test_every_image_and_key_differ():
    same = jnp.asarray(np.repeat(PIXELS[:1], 4, 0))
    first, again, other = (np.asarray(compiled_random_affine(jax.random.key(k), same)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({each.tobytes() for each in (*first, *other)}) == 8
