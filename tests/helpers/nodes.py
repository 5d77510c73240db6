"""Runs an artefact's nodes one after another, in plain loops: what they say together while some are dead."""

import jax
import numpy as np
from jax import export

from resilinet_jax.deploy.artefact import Artefact


class Nodes:
    """The nodes of an artefact, each of its own two files alone."""

    def __init__(self, folder):
        self.artefact = Artefact.open(folder)
        self.manifest, self.graph = self.artefact.manifest, self.artefact.graph
        programs = {n: export.deserialize(bytearray(self.artefact.program(n))) for n in self.graph.order}
        self.programs = {node: jax.jit(program.call) for node, program in programs.items()}
        self.arrays = {n: self.artefact.arrays(n) for n in self.graph.order}

    def answer(self, x, alive):
        """The logits, or None where nothing arrives, for standardised inputs; `alive` by node and link."""
        sent = {}
        for node in self.graph.order:
            if not alive.get(node, 1):
                continue
            if node in self.graph.sources:
                sent[node] = self.call(node, [], np.asarray(x))
                continue
            edges = [(i, edge) for i, edge in enumerate(self.graph.hyperconnections) if edge.target == node]
            brings = [edge.source in sent and alive.get(edge.name, 1) and self.manifest.present[i] for i, edge in edges]
            simple = {edge.source: there for there, (_, edge) in zip(brings, edges) if not edge.is_skip}
            carries, values = [], []
            for there, (_, edge) in zip(brings, edges):
                closed = edge.is_skip and not self.manifest.activity and simple[edge.bypassed[-1]]
                carries.append(1.0 if there and not closed else 0.0)
                # What is not carried must not matter.
                values.append(sent[edge.source] if carries[-1] else self.anything(edge.source, len(x)))
            if any(carries):
                sent[node] = self.call(node, carries, *values)
        return sent.get(self.graph.cloud)

    def call(self, node, carries, *values):
        carries = np.asarray(carries, np.float32)
        assert sorted(self.arrays[node]) == list(self.manifest.nodes[node].arguments)
        value = np.asarray(self.programs[node](self.arrays[node], carries, *values))
        signature = self.manifest.nodes[node]
        assert value.dtype == signature.dtype
        assert list(np.delete(value.shape, signature.batch_axis)) == list(signature.shape)
        return value

    def anything(self, node, count):
        signature = self.manifest.nodes[node]
        shape = list(signature.shape)
        shape.insert(signature.batch_axis, count)
        return np.full(shape, 1e30, signature.dtype)
