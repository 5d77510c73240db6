"""Random rotation, shift and flip against dm-pix: `python -m benchmarks.augmentation`. Needs `.[bench]`.

Both turn a batch of uint8 images bilinearly with repeated edges, compiled, and take turns of several calls each.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import common, race
from resilinet_jax.datasets.augmentation import ROTATION, SHIFT, random_affine

_BATCH = flags.DEFINE_integer("batch_size", 128, "Images.", lower_bound=1)
_CALLS = flags.DEFINE_integer("calls", 10, "Of a turn.", lower_bound=1)
_SIZE = flags.DEFINE_integer("image_size", 32, "Their height and width.", lower_bound=2)


def peer(key: jax.Array, images: jax.Array) -> jax.Array:
    """The same with dm-pix."""
    import dm_pix

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (3,), minval=-1, maxval=1)
        angle, size = draws[0] * jnp.deg2rad(ROTATION), image.shape[0]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        matrix = jnp.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        middle = jnp.array([(size - 1) / 2, (size - 1) / 2, 0])
        offset = middle - matrix @ middle + jnp.append(draws[1:] * SHIFT * size, 0)
        turned = dm_pix.affine_transform(image.astype(jnp.float32), matrix, offset=offset, order=1, mode="nearest")
        return dm_pix.random_flip_left_right(key, turned)

    return jax.vmap(one)(jax.random.split(key, len(images)), images)


def calls(function: Callable[..., jax.Array], images: jax.Array) -> Callable[[], None]:
    """A turn of `function`, which is compiled before."""
    compiled, key = jax.jit(function), jax.random.key(0)
    compiled(key, images).block_until_ready()

    def turn() -> None:
        for _ in range(_CALLS.value):
            compiled(key, images).block_until_ready()

    return turn


def main(argv: Sequence[str]) -> None:
    """Prints both times."""
    del argv
    if not common.installed("dm_pix"):
        raise SystemExit(1)
    shape = (_BATCH.value, _SIZE.value, _SIZE.value, 3)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    turns = {"dm-pix": race.timed(calls(peer, images)), "resilinet_jax": race.timed(calls(random_affine, images))}
    rows: list[dict[str, Any]] = [
        {"who": name, "ms": 1000 * statistics.median(seconds) / _CALLS.value, "turns": seconds}
        for name, seconds in race.take_turns(turns).items()
    ]
    for row in rows:
        row["times as fast"] = rows[0]["ms"] / row["ms"]
    columns = {"who": "", "ms": ".2f", "times as fast": ".1f"}
    common.tell(f"Rotating, shifting, flipping {_BATCH.value} images of {_SIZE.value} pixels", columns, rows)


if __name__ == "__main__":
    app.run(main)
