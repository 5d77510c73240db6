import pytest

from resilinet_jax.engine import run_cells as engine
from tests.helpers.blobs import Shared


@pytest.fixture(scope="module")
def shared():
    """What one test has compiled, others of the same shapes call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Program", Shared)
        yield
