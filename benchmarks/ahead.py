"""What accelerators would be given to do, compiled without one: `python -m benchmarks.ahead`.

The engine's own functions are compiled for an H100 and a TPU v5e from descriptions of them. Nothing runs, so this tells
how many kernels a step launches, how much memory a pass takes and what is in the way of speed, and no time.
`pip install -e '.[ahead]'` brings the two compilers, best into an environment of its own: JAX looks for them wherever
it starts.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh
from jax.stages import Compiled

from benchmarks import common
from benchmarks.cases import CASES, Case, build_network, load_splits
from benchmarks.own import RUNS, Own
from resilinet_jax.engine.pass_size import DEVICE_SHARE, Cost, fitting, kept_bytes
from resilinet_jax.engine.program import shapes_on, shardings
from resilinet_jax.engine.trial import Trial

_DEVICES = flags.DEFINE_list("devices", None, "For which to compile; all without it.")
_CASES = flags.DEFINE_list("cases", ["health", "quick", "small"], f"What is trained: of {', '.join(CASES)}.")
_MODELS = flags.DEFINE_list(
    "models", ["280"], "How many are in a pass, each in turn; most for as many as fit the memory."
)
_FUNCTIONS = flags.DEFINE_list("functions", [], "Which are compiled, as order,train; all without it.")

# As NVIDIA's data sheet and CUDA's device query have it, and as XLA reads it.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
}
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 8 patch: 0 } dnn_version_info { major: 9 minor: 7 }
"""


class Device(NamedTuple):
    """A kind of device that need not be there.

    Attributes:
      backend: what `jax.default_backend` says where there is one.
      plugin: the module that compiles for it.
      memory: bytes it has.
      topology: what `jax.experimental.topologies` asks for.
    """

    backend: str
    plugin: str
    memory: int
    topology: Mapping[str, Any]


DEVICES = {
    "H100": Device(
        "gpu",
        "jax_cuda12_plugin",
        80 * 2**30,
        {"topology_name": "h100", "platform": "cuda", "target_config": H100, "topology": "1x1x1"},
    ),
    "TPU v5e": Device("tpu", "libtpu", 16 * 2**30, {"topology_name": "v5e:2x2", "platform": "tpu"}),
}


class Instruction(NamedTuple):
    """One of a compiled program, as its text has it.

    Attributes:
      operation: what is done, as XLA calls it.
      told: all that stands behind the operation.
    """

    operation: str
    told: str

    def names(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=[%\"]?([\w.\-$]+)", self.told)
        return found and found.group(1)


# What no device is asked to do, or what only waits for the end of something.
_NO_KERNEL = re.compile("parameter|constant|tuple|get-tuple-element|bitcast|after-all|call|while|.*-done")
_HINDRANCES = {
    "float64": r"\bf64\[",
    "host callback": r'custom_call_target="[^"]*callback',
    "transfer": r"\s(infeed|outfeed|send|recv)\(|S\(5\)",  # memory space 5 is the host's
    "grouped convolution": r"(feature|batch)_group_count=(?!1\b)\d",
}


class Computations:
    """A compiled program by its computations."""

    def __init__(self, text: str):
        """Reads the text of `jax.stages.Compiled`."""
        self._all: dict[str, list[Instruction]] = {}
        own: list[Instruction] = []
        for line in text.splitlines():
            if opens := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                own = self._all.setdefault(opens.group(1), [])
                if line.startswith("ENTRY"):
                    self._entry = opens.group(1)
            elif found := re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([\w\-]+)\((.*)$", line):
                own.append(Instruction(*found.groups()))

    def kernels(self, name: str) -> Iterator[Instruction]:
        """What a computation has done on the device, without what its loops do."""
        for each in self._all[name]:
            if each.operation == "call" and (called := each.names("to_apply")):
                yield from self.kernels(called)
            if not _NO_KERNEL.fullmatch(each.operation):
                yield each

    def step(self) -> list[Instruction]:
        """The kernels of what multiplies matrices again and again: the innermost loop, or all where there is none.

        Of several loops, such as those of full stacks of models and of the rest, the longest.
        """
        loops = [body for own in self._all.values() for each in own if (body := each.names("body"))]
        for names in (loops, [self._entry]):
            steps = [list(self.kernels(name)) for name in names]
            if steps := [step for step in steps if any(map(self.multiplies, step))]:
                return max(steps, key=len)
        return []

    def multiplies(self, kernel: Instruction) -> bool:
        """Whether a kernel is a product of matrices or a convolution, whatever is fused with it."""
        fused = self._all[name] if (name := kernel.names("calls")) else [kernel]
        return any(
            each.operation in ("dot", "convolution") or "gemm" in (each.names("custom_call_target") or "")
            for each in fused
        )


def hindrances(text: str) -> list[str]:
    """What a compiled program has that should not be in the way of an epoch."""
    return [name for name, pattern in _HINDRANCES.items() if re.search(pattern, text)]


def taken(compiled: Compiled) -> int:
    """Bytes of the device that a compiled function takes: arguments, results and what it works with."""
    told: Any = compiled.memory_analysis()
    both = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    return both + told.temp_size_in_bytes


def compiled(own: Own, mesh: Mesh, models: int, only: Collection[str] = ()) -> Iterator[tuple[str, Compiled]]:
    """The engine's functions by name, compiled for devices that need not be there.

    Args:
      own: whose program it is.
      mesh: of the devices.
      models: in a pass.
      only: names of the functions; all without it.
    """
    one = own.assembled()

    def shapes(tree: Any, count: int) -> Any:
        leaves = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), tree)
        return shapes_on(leaves, shardings(mesh).sharded)

    orders = shapes((one.keys.chunks, one.split), min(models, RUNS))
    for name, (function, arguments, donated) in own.program.traceables(mesh, shapes(one, models), orders).items():
        if not only or name in only:
            lowered = jax.jit(function, donate_argnums=donated).lower(*arguments)
            yield name, lowered.compile(own.program.options())


def most(own: Own, mesh: Mesh, memory: int) -> int:
    """How many models the engine would put in a pass on a device of so many bytes, whatever their time."""
    abreast, trial = own.program.stack, Trial(own.program)
    ((_, train),) = compiled(own, mesh, abreast, ["train"])
    told: Any = train.memory_analysis()
    cost = Cost(step_seconds=1e-9, working_bytes=told.temp_size_in_bytes)
    return fitting(cost, abreast, own.program.steps_per_epoch, kept_bytes(trial), int(DEVICE_SHARE * memory))


def measure(device: Device, case: Case, models: int | None, only: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """What the functions of a case come to on a device, a row for each.

    Args:
      device: that need not be there.
      case: what is trained.
      models: in a pass; None for as many as fit the memory.
      only: names of the functions; all without it.
    """
    mesh = Mesh(np.array(topologies.get_topology_desc(**device.topology).devices[:1]), ("models",))
    # All that depends on the kind of device asks this.
    with mock.patch("jax.default_backend", return_value=device.backend):
        splits = load_splits(case)
        own = Own(*build_network(case, splits.classes), splits, case.batch_size, models or RUNS)
        models = models or most(own, mesh, device.memory)
        for function, each in compiled(own, mesh, models, only):
            text = str(each.as_text())
            computations = Computations(text)
            step = computations.step()
            yield {
                "models": models,
                "function": function,
                "kernels": len(step) or None,
                "products": sum(map(computations.multiplies, step)) or None,
                "GB": taken(each) / 1e9,
                "in the way": ", ".join(hindrances(text)),
            }


def main(argv: Sequence[str]) -> None:
    """Compiles, and prints the table."""
    del argv
    jax.config.update("jax_platforms", "cpu")  # else the compilers are sent away where no such device is
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}  # and look for one on the network, loudly
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # beside a process that has loaded it, as no device is shared
    rows = []
    for name in _DEVICES.value or DEVICES:
        device = DEVICES[name]
        if importlib.util.find_spec(device.plugin) is None:
            print(f"without {name}: pip install -e '.[ahead]' brings its compiler", file=sys.stderr)
            continue
        for scenario in _CASES.value:
            for case in CASES[scenario]:
                size = ", ".join(f"{key} {value}" for key, value in case.size.items() if key != "layers")
                told = {"device": name, "network": f"{scenario}, {size}"}
                for asked in _MODELS.value:
                    models = None if asked == "most" else int(asked)
                    rows += [told | row for row in measure(device, case, models, _FUNCTIONS.value)]
    forms = {"device": "", "network": "", "models": ",", "function": "", "kernels": "", "products": "", "GB": ".2f"}
    common.tell(
        "Kernels of the innermost loop, matrix products among them, and memory of whole functions; nothing was run",
        forms | {"in the way": ""},
        rows,
    )


if __name__ == "__main__":
    app.run(main)
