"""A small network with batch normalisation on the chain, and the same in plain NumPy."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from resilinet_jax.network.forward import Network
from tests.helpers.reference import CHAIN

MOMENTUM, EPSILON, UNITS, CLASSES = 0.8, 0.001, 4, 3


class Normalised(nn.Module):
    """A dense layer with batch normalisation and ReLU; its statistics are averages that fade by `MOMENTUM`."""

    classes: int | None = None

    @nn.compact
    def __call__(self, x, training):
        x = nn.Dense(UNITS, name="first")(x)
        scale = self.param("scale", nn.initializers.uniform(1.0), (UNITS,)) + 0.5
        known = {name: self.variable("batch_stats", name, jnp.zeros, UNITS) for name in ("mean", "variance")}
        steps = self.variable("batch_stats", "steps", jnp.zeros, ())
        now = {name: each.value for name, each in known.items()}
        if training:
            now = {"mean": x.mean(0), "variance": x.var(0)}
            steps.value = steps.value + 1
            for name, each in known.items():
                each.value += (1 - MOMENTUM) / (1 - MOMENTUM**steps.value) * (now[name] - each.value)
        x = nn.relu((x - now["mean"][None]) / jnp.sqrt(now["variance"][None] + EPSILON) * scale[None])
        return x if self.classes is None else nn.Dense(self.classes, name="last")(x)


NETWORK = Network(CHAIN, {node: Normalised(CLASSES if node == "n4" else None) for node in CHAIN.order[1:]}, {})


def forward(arrays, x, failing, activity, present, known=None):
    """Logits, whether anything arrived, and mean and variance at each node that sends: the batch's, or known ones."""
    sent, sends, met = {"i": np.asarray(x, np.float64)}, {"i": True}, {}
    for node in CHAIN.order[1:]:
        carried = []
        for there, edge in zip(present, CHAIN.hyperconnections):
            if edge.target == node and there and sends[edge.source]:
                gate = 1 if not edge.is_skip else max(activity, 1 - sends[edge.bypassed[-1]])
                carried += [gate * sent[edge.source]] if gate else []
        sends[node] = bool(carried) and node not in failing
        if not sends[node]:
            continue
        own = {path.split("/", 2)[2]: array for path, array in arrays.items() if path.startswith(f"params/{node}/")}
        value = sum(carried) @ own["first/kernel"].astype(np.float64) + own["first/bias"]
        met[node] = (value.mean(0), value.var(0)) if known is None else known[node]
        mean, variance = met[node]
        value = np.maximum((value - mean) / np.sqrt(variance + EPSILON) * (own["scale"] + 0.5), 0)
        sent[node] = value @ own["last/kernel"] + own["last/bias"] if node == "n4" else value
    return sent.get("n4"), sends["n4"], met


def faded(values):
    """Average of what came batch by batch, each weighing less the longer ago it came."""
    weights = MOMENTUM ** np.arange(len(values))[::-1]
    return np.tensordot(weights / weights.sum(), np.array(values), 1)
