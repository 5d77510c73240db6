"""A short form of the campaign, on real nodes of Ray."""

from tests.campaigns.deaths import run
from tests.helpers.blobs import write_npz


def test_a_sweep_under_deaths_ends_as_it_does_alone(tmp_path):
    write_npz(tmp_path / "data.npz")
