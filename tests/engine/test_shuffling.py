import jax
import numpy as np
import pytest

from resilinet_jax.engine.shuffling import random_order


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 5_000, 70_000])
def test_orders_are_those_of_jax(backend, count, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for seed in range(3):
        key = jax.random.key(seed)
        order, expected = random_order(key, count), jax.random.permutation(key, count)
        assert order.dtype == expected.dtype
        np.testing.assert_array_equal(order, expected)


def test_among_equal_keys_the_earlier_place_comes_first(monkeypatch):
    keys = np.random.default_rng(0).integers(0, 4, 64).astype(np.uint32)
    monkeypatch.setattr(jax.random, "bits", lambda key, shape: jax.numpy.asarray(keys))
    # 64 numbers take a single round.
    np.testing.assert_array_equal(random_order(jax.random.key(0), 64), np.argsort(keys, kind="stable"))


def test_many_orders_at_once():
    keys = jax.random.split(jax.random.key(5), 4)
    orders = jax.jit(jax.vmap(lambda key: random_order(key, 50)))(keys)
    np.testing.assert_array_equal(orders, [jax.random.permutation(key, 50) for key in keys])
    assert not jax.config.jax_enable_x64
