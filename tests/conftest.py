import gc
import os
import shutil
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

import tests.helpers.typechecking  # noqa: F401  (the hook below looks it up by name)
from tests.helpers.process import ROOT

# Shapes in annotations are checked at run time, but only while testing, and only in modules that name shapes: a fifth
# of the time went into strings and tuples, which mypy checks.
FILES = [path.relative_to(ROOT) for path in ROOT.glob("resilinet_jax/**/*.py") if "jaxtyping" in path.read_text()]
SHAPED = ["resilinet_jax.sweeps", *(".".join(path.with_suffix("").parts) for path in FILES)]
install_import_hook(SHAPED, "tests.helpers.typechecking.typecheck")

# Silent broadcasting between ranks is how a mask meets the wrong axis.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs here are tiny and many: compiling them takes longer than running them. Commands that tests start do the same.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
jax.config.update("jax_disable_most_optimizations", True)
# Nobody reads from which lines an operation comes: writing that down is a twentieth of the time.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
jax.config.update("jax_traceback_in_locations_limit", 0)
# XLA's older way to make code, in one piece, takes half as long to compile. JAX 0.12 does not know the second flag.
FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
# Tracing makes millions of objects that live on in caches: looking through all of them again and again takes long.
gc.freeze()
gc.set_threshold(100_000, 50, 1000)
# Two devices, so that every test of the engine shards its runs.
jax.config.update("jax_num_cpu_devices", 2)

# What one test has compiled, others and the commands that they start need not compile again: in a folder of this
# session's own, which its workers find in the environment, so that nothing comes from a session before.
CACHE = os.environ.get("RESILINET_JAX_TEST_CACHE") or tempfile.mkdtemp(prefix="resilinet_jax.")
os.environ.setdefault("RESILINET_JAX_TEST_CACHE", CACHE)
jax.config.update("jax_compilation_cache_dir", os.path.join(CACHE, "resilinet_jax", "programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_sessionfinish(session):
    # pytest looks five times for what was never closed; once, through all that JAX keeps, takes a second as it is.
    gc.collect()
    gc.freeze()
    if not hasattr(session.config, "workerinput"):  # not in a worker
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def own_cache():
    """Commands that the tests start keep their compiled programs out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", CACHE)
        yield


@pytest.fixture
def unrendered(monkeypatch):
    """Reports hold what their figures say instead of pictures, where a test does not look at them."""
    from tests.helpers.fakes import leave_out_pictures  # after the hook above

    leave_out_pictures(monkeypatch)
