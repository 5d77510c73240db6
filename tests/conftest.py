import jax
import pytest
from jaxtyping import install_import_hook

import tests.helpers.typechecking  # noqa: F401  (the hook below looks it up by name)

# Shapes in annotations are checked at run time, but only while testing.
install_import_hook("resilinet_jax", "tests.helpers.typechecking.typecheck")

# Silent broadcasting between ranks is how a mask meets the wrong axis.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs here are tiny and many: compiling them takes longer than running them.
jax.config.update("jax_disable_most_optimizations", True)
# Two devices, so that every test of the engine shards its runs.
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Commands that the tests start keep their compiled programs out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
