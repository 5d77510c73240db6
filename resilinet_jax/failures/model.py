"""How things fail: one model for nodes, links and groups, in training and at inference.

A survival mask has one entry for each of `Graph.fallible`, nodes and then links: 1 = alive, 0 = failed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from resilinet_jax.network.graph import Graph, Hyperconnection
from resilinet_jax.network.senders import has_path


@dataclasses.dataclass(frozen=True)
class FailureModel:
    """Independent causes, each of which fails a set of nodes and links (`Graph.causes`).

    A failure setting and a cell's failout rates are both probabilities of these causes, so training draws from the
    distribution that averages are taken over. A new kind of failure is declared in `network.graph`, and this class
    says what it means; nothing else has to know.

    Attributes:
      graph: whose nodes and links fail.
    """

    graph: Graph

    def sample(
        self, key: Key[Array, ""], failout_rate: Float[Array, " causes"], steps: int
    ) -> Float[Array, "steps fallible"]:
        """One survival mask per training step: each cause occurs with probability f, independently of the others.

        Without groups a node is its own only cause, so its survival is b_v ~ Bernoulli(1 - f_v). The uniform draws
        depend on the key alone, so that runs which differ only in their rates fail nested sets of nodes: whatever
        fails at 5 % fails at 10 % too.

        Args:
          key: of the run and epoch.
          failout_rate: probability in a step of each of `Graph.causes`, in [0, 1].
          steps: number of masks.

        Source: Yousefpour et al. 2020, section 2.3.
        """
        draws = jax.random.uniform(key, (steps, failout_rate.shape[0]))
        spared = draws >= failout_rate[None, :]
        causes = list(self.graph.causes.values())
        survival = [
            functools.reduce(jnp.logical_and, [spared[:, c] for c, failing in enumerate(causes) if name in failing])
            for name in self.graph.fallible
        ]
        return jnp.stack(survival, 1).astype(failout_rate.dtype) if survival else jnp.zeros((steps, 0))

    def probabilities(
        self, survival: Num[np.ndarray, "combinations fallible"], failure_probability: Float[np.ndarray, " causes"]
    ) -> Float[np.ndarray, " combinations"]:
        """Probability of each survival mask.

        Args:
          survival: a mask per row.
          failure_probability: of each of `Graph.causes`, which are independent, in [0, 1].
        """
        fallible = self.graph.fallible
        alone, of_groups = np.split(np.asarray(failure_probability, np.float64), [len(fallible)])
        total = np.zeros(len(survival))
        # Given which groups fail, all else is independent: what is in none of them fails by itself, or not.
        for failing in itertools.product((False, True), repeat=len(of_groups)):
            members = {name for (_, names), fails in zip(self.graph.groups, failing) if fails for name in names}
            given = np.where([name in members for name in fallible], 1.0, alone)
            weight = np.where(failing, of_groups, 1 - of_groups).prod()
            total += weight * mask_probabilities(survival, given)
        return total

    def marginals(self, values: Mapping[str, float]) -> dict[str, float]:
        """Probability that each of `Graph.fallible` fails, by itself or with a group.

        Args:
          values: probabilities by the name of causes; those not named never occur.
        """
        failure = dict(zip(self.graph.causes, self.graph.node_values(values)))
        return {name: 1 - self.survival_probability(failure, name) for name in self.graph.fallible}

    def survival_probability(self, failure: Mapping[str, float], *names: str) -> float:
        """Probability that all of these nodes and links survive, for the probabilities of all causes by name."""
        return math.prod(
            1 - failure[cause] for cause, failing in self.graph.causes.items() if any(name in failing for name in names)
        )

    def teaches(self, cause: str, skips: Collection[Hyperconnection]) -> bool:
        """Whether training has anything to learn from a cause, with these skips present.

        A node between the source and the cloud has to be bypassed by a skip; of what can't be bypassed (several
        sources, links, groups) it is enough that a path remains.
        """
        (first, *more) = failing = self.graph.causes[cause]
        if more or first in self.graph.links or first in self.graph.sources:
            return has_path(self.graph, failing, skips)
        return any(first in skip.bypassed for skip in skips)


def mask_probabilities(
    survival: Num[np.ndarray, "combinations nodes"], failure_probability: Float[np.ndarray, "*settings nodes"]
) -> Float[np.ndarray, "*settings combinations"]:
    """P(b) = prod_v p_v^(1-b_v) (1-p_v)^b_v for each mask b, where everything fails independently.

    Args:
      survival: a mask per row.
      failure_probability: of each entry of a mask, in [0, 1].
    """
    failure = np.asarray(failure_probability, np.float64)[..., None, :]
    return np.where(survival > 0, 1 - failure, failure).prod(-1)


def with_failout_at_inference(
    failure_probability: Float[np.ndarray, " causes"], failout_rate: Float[np.ndarray, " causes"]
) -> Float[np.ndarray, " causes"]:
    """Failure probability if failout is left on while testing: p' = 1 - (1 - p)(1 - f)."""
    return 1 - (1 - failure_probability) * (1 - failout_rate)
