"""What people write in a scenario's file, which has to work as it stands: loaded, built and rehearsed on shapes."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config

from resilinet_jax.command.ingredients import build_network
from resilinet_jax.command.settings import Settings, choose
from resilinet_jax.errors import UserError
from resilinet_jax.network.forward import Network, Wiring
from resilinet_jax.network.graph import build_chain
from resilinet_jax.network.rehearsal import rehearse
from resilinet_jax.runtime import user_code
from tests.helpers.own_scenario import FILE

STAGE, ADAPTER = '"edge": Stage(units)', '{"i->cloud": rj.dense(units)}'
CALL, BODY = "def __call__(self, x, training):", "return nn.relu(nn.Dense(self.units)(x))"
DATA = 'rj.Dataset("mine", x, y)'
CASES = {
    # How files are written and what they import.
    "a byte order mark": ("import flax.linen as nn", "\ufeffimport flax.linen as nn"),
    "lines that end as on Windows": ("\n", "\r\n"),
    "annotations from the future": (
        "import flax.linen as nn",
        "from __future__ import annotations\nimport flax.linen as nn",
    ),
    "words at import": ("import flax.linen as nn", "print('mine')\nimport flax.linen as nn"),
    "a flag of absl's": ("class Stage", "from absl import flags\nflags.DEFINE_integer('ordinary', 8, '')\nclass Stage"),
    "a helper": ("class Stage", "from ordinary_helper import UNITS\nclass Stage"),
    "a helper where it is needed": (BODY, "import ordinary_helper\n        " + BODY),
    "a package": ("class Stage", "from ordinary_package import UNITS\nclass Stage"),
    "a kernel from a file": (
        BODY,
        "kernel = np.load(__file__.replace('own.py', 'kernel.npy'))\n"
        "        return x @ self.param('kernel', lambda key: kernel)",
    ),
    # Stages and adapters.
    "a layer": (STAGE, '"edge": nn.Dense(units)'),
    "layers in a row": (STAGE, '"edge": nn.Sequential([nn.Dense(units), nn.relu])'),
    "stages in a row": (STAGE, '"edge": nn.Sequential([Stage(units), Stage(units)])'),
    "layers that are told": (STAGE, '"edge": nn.Sequential([nn.Dense(units), nn.BatchNorm(), nn.Dropout(0.5)])'),
    "a layer that is told already": (STAGE, '"edge": nn.Sequential([nn.Dense(units), nn.BatchNorm(True)])'),
    "a function": (STAGE, '"edge": lambda x, training: x[:, :units]'),
    "a function that makes layers": (STAGE, '"edge": lambda x, training: nn.Dense(units)(x)'),
    "an activation": (STAGE, '"edge": nn.Sequential([nn.Dense(units)]), **{"cloud": nn.relu}'),
    "a function as adapter": (ADAPTER, '{"i->cloud": lambda x: x[:, :units]}'),
    "not told of training": (CALL, "def __call__(self, x):"),
    "told by name": (CALL, "def __call__(self, x, *, train):"),
    "told the opposite": (CALL, "def __call__(self, x, deterministic=True):"),
    "NNX in Linen": (
        BODY,
        "from flax import nnx\n        return nnx.bridge.to_linen(nnx.Linear, 5, self.units)(x)",
    ),
    "bfloat16": (BODY, 'return nn.Dense(self.units, dtype="bfloat16")(x)'),
    "a sown activation": (BODY, 'y = nn.Dense(self.units)(x); self.sow("intermediates", "y", y); return y'),
    "a sown loss": (BODY, 'y = nn.Dense(self.units)(x); self.sow("losses", "l2", (y**2).mean()); return y'),
    "a perturbation": (BODY, 'return self.perturb("p", nn.Dense(self.units)(x))'),
    "a spectral norm": (BODY, "return nn.SpectralNorm(nn.Dense(self.units))(x, update_stats=training)"),
    "a key of its own": (
        BODY,
        "import jax\n        y = nn.Dense(self.units)(x)\n"
        '        return y + jax.random.normal(self.make_rng("noise"), y.shape) if training else y',
    ),
    "words in a stage": (BODY, "print(x.shape)\n        " + BODY),
    # Names and sizes of graphs.
    "a name of a device": ('"edge"', '"raspberry pi 4 (边缘)"'),
    "a name of signs": ('"edge"', '"a|b=c, <d>: $e_f^/.%"'),
    # Data.
    "lists": (DATA, 'rj.Dataset("mine", x.tolist(), y.tolist())'),
    "a data frame": (DATA, 'rj.Dataset("mine", pd.DataFrame(x), pd.Series(y))'),
    "arrays of JAX": (DATA, 'rj.Dataset("mine", jnp.asarray(x), jnp.asarray(y))'),
    "subjects by name": (DATA, 'rj.Dataset("mine", x, y, pd.Series([f"S{k % 9}" for k in range(200)]))'),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes the choice of a file with some source, without the tests' shape checks, as a user has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    (tmp_path / "ordinary_helper.py").write_text("UNITS = 8\n")
    (tmp_path / "ordinary_package").mkdir()
    (tmp_path / "ordinary_package" / "__init__.py").write_text("from .inner import UNITS\n")
    (tmp_path / "ordinary_package" / "inner.py").write_text("UNITS = 8\n")
    np.save(tmp_path / "kernel.npy", np.ones((5, 4), np.float32))

    def make(source):
        monkeypatch.setattr(user_code, "_loaded", {})
        for name in [name for name in sys.modules if name.startswith("ordinary_")]:
            del sys.modules[name]
        (tmp_path / "own.py").write_bytes(source.encode())
        return choose(Settings("failure_combinations", scenario="own.py"))

    return make


@pytest.mark.parametrize("case", CASES)
def test_ordinary_code_is_taken(own, case):
    old, new = CASES[case]
    assert old in FILE
    choice = own(
        FILE.replace(old, new).replace(
            "import numpy as np", "import jax.numpy as jnp\nimport numpy as np\nimport pandas as pd", 1
        )
    )
    data = choice.load_data()
    rehearse(build_network(choice, data.classes), data.feed.spec("train"), data.classes)


def test_a_helper_counts_as_code(own):
    source = "from ordinary_helper import UNITS\n" + FILE
    version = own(source).scenario.version
    with open("ordinary_helper.py", "a") as file:
        file.write("# a comment\n")
    assert own(source).scenario.version == version
    with open("ordinary_helper.py", "a") as file:
        file.write("UNITS = 9\n")
    assert own(source).scenario.version != version
    assert own(FILE).scenario.file.helpers == {}


def test_a_mistake_in_a_helper_is_told_with_its_line(own):
    with open("ordinary_helper.py", "a") as file:
        file.write("\nx = 1 / 0\n")
    with pytest.raises(UserError, match=r"^ordinary_helper.py:3: ZeroDivisionError: division by zero; mend this line"):
        own("from ordinary_helper import UNITS\n" + FILE)


NORM = nn.BatchNorm(momentum=0.0)


@pytest.mark.parametrize("stage", [NORM, nn.Sequential([NORM])])
def test_flaxs_own_names_for_inference_are_the_opposite_of_training(stage):
    network = Network(build_chain("abc"), {"b": stage}, {})
    x = jnp.array([[1.0], [3.0]])
    variables = jax.jit(network.init)(jax.random.key(0), x)
    wiring = Wiring(*[jnp.array([1.0, 1.0, 0.0])] * 3)  # without the skip

    def output(key):
        return network.apply(variables, x, jnp.ones(1), wiring, key)

    # In training a batch is normalised by itself, and it is remembered; else by what was kept: mean 0, variance 1.
    np.testing.assert_allclose(output(jax.random.key(1)).logits[:, 0], [-1, 1], atol=1e-4)
    np.testing.assert_allclose(output(None).logits, x, atol=1e-4)
    (mean,) = {float(leaf[1, 0]) for leaf in jax.tree.leaves(output(jax.random.key(1)).statistics["b"].values)} - {1.0}
    assert mean == 2
