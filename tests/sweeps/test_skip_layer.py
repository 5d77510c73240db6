from resilinet_jax.sweeps.skip_layer import cells
from tests.helpers.fakes import BUILD


def test_every_cell_has_the_size_of_its_name():
    made = cells(BUILD)
    assert {name: int(cell.skip_units) for name, cell in made.items()} == {
        "skip_layer_0": 0,
        "skip_layer_4": 4,
        "skip_layer_16": 16,
        "skip_layer_64": 64,
    }
    assert made["skip_layer_0"].key() == BUILD("resilinet").key()
