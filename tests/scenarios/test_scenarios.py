from resilinet_jax.datasets import images, own_images, readings
from resilinet_jax.scenarios import load_scenario


def test_scenarios_offer_the_data_sets_that_there_are_loaders_for():
    assert load_scenario("cifar10").datasets == (*images.LOADERS, ".npz", *own_images.ARCHIVES, readings.FOLDER)
    for name in ("health", "health_sensors"):
        assert load_scenario(name).datasets == tuple(readings.LOADERS)
