import jax
from jaxtyping import install_import_hook

import tests.typechecking  # noqa: F401  (the hook below looks it up by name)

# Shapes in annotations are checked at run time, but only while testing.
install_import_hook("resilinet_jax", "tests.typechecking.typecheck")

# Silent broadcasting between ranks is how a mask meets the wrong axis.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs here are tiny and many: compiling them takes longer than running them.
jax.config.update("jax_disable_most_optimizations", True)
# Two devices, so that every test of the engine shards its runs.
jax.config.update("jax_num_cpu_devices", 2)
