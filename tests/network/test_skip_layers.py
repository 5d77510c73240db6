import functools

import jax
import numpy as np
import pytest

from resilinet_jax.network.stages import SETTING, SKIP_UNITS, DenseSkipLayer, PointwiseAdapter, SeparableSkipLayer
from resilinet_jax.scenarios import load_scenario

RNG = np.random.default_rng(0)


def random_params(module, x):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(module, *given):
    return module.apply(*given)


def applied(module, params, x, size):
    return np.asarray(apply(module, {"params": params, SETTING: {SKIP_UNITS: np.float32(size)}}, x))


@pytest.mark.parametrize("size", [0, 1, 3, 6])
@pytest.mark.parametrize("width", [5, 7])
def test_dense_skip_layer_is_a_hidden_layer_of_its_size(size, width):
    x = RNG.normal(size=(4, width)).astype(np.float32)
    module = DenseSkipLayer(units=6, outputs=5)
    params = random_params(module, x)
    # The plain adapter, where the widths differ, comes first.
    *plain, first, second = (params[name] for name in sorted(params))
    if size == 0:
        expected = x @ plain[0]["kernel"] + plain[0]["bias"][None] if plain else x
    else:
        hidden = np.maximum(x @ first["kernel"] + first["bias"][None], 0)[:, :size]
        expected = hidden @ second["kernel"][:size] + second["bias"][None]
    np.testing.assert_allclose(applied(module, params, x, size), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_separable_skip_layer_without_units_is_the_plain_adapter(stride):
    x = RNG.normal(size=(3, 8, 6, 4)).astype(np.float32)
    module = SeparableSkipLayer(units=6, filters=5, stride=stride)
    params = random_params(module, x)
    plain = apply(PointwiseAdapter(5, stride), {"params": params["PointwiseAdapter_0"]}, x)
    np.testing.assert_array_equal(applied(module, params, x, 0), plain)
    few, more = applied(module, params, x, 2), applied(module, params, x, 6)
    assert few.shape == more.shape == plain.shape
    assert np.abs(few - more).max() > 0.1
    # Units beyond the size have no say.
    params["depthwise"][:, :, 2:] = 9.0
    np.testing.assert_allclose(applied(module, params, x, 2), few, atol=1e-5)


@pytest.mark.parametrize("name", ["health", "health_sensors", "cifar10", "imagenet"])
def test_every_scenario_has_skip_layers(name):
    scenario = load_scenario(name)
    network = scenario.build_network(3, **scenario.presets["quick"].network, skip_units=2)
    assert set(network.adapters) == {skip.name for skip in network.graph.skips}
    assert all(adapter.units == 2 for adapter in network.adapters.values())
