import jax
import jax.numpy as jnp
import pytest

from resilinet_jax.datasets import images, own_images, readings
from resilinet_jax.scenarios import load_scenario


def test_scenarios_offer_the_data_sets_that_there_are_loaders_for():
    assert load_scenario("cifar10").datasets == (*images.LOADERS, ".npz", *own_images.ARCHIVES, readings.FOLDER)
    for name in ("health", "health_sensors"):
        assert load_scenario(name).datasets == tuple(readings.LOADERS)


@pytest.mark.parametrize("name", ["health", "health_sensors", "cifar10", "imagenet"])
def test_xla_knows_the_options_of_every_scenario(name):
    # Where nothing is to be optimised, as in tests, dense networks leave it at that.
    assert name in ("cifar10", "imagenet") or not load_scenario(name).compiler_options()
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        options = dict(load_scenario(name).compiler_options())
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    assert options
    assert jax.jit(jnp.square).lower(3.0).compile(options)(3.0) == 9
