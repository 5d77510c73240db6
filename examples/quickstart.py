"""Three methods on a network of one's own, under every failure combination: under a minute on a laptop.

python examples/quickstart.py
"""

import numpy as np

import resilinet_jax as rj


def main(examples: int = 20_000, epochs: int = 10) -> dict[str, np.ndarray]:
    """Average accuracy of each run, by method."""
    # i -> n1 -> n2 -> n3 -> n4, two dense layers on n2; n4 is the cloud, and every other node has a skip around it.
    splits = rj.split_dataset(rj.load_synthetic(), "random", seed=0, train_examples=examples)
    network = rj.dense_network({"n1": 1, "n2": 2, "n3": 1, "n4": 1}, 64, splits.classes)

    failures = {"n1": 0.2, "n2": 0.1, "n3": 0.05}
    build = rj.CellBuilder(network.graph, {"mine": failures}, failout_rate=0.1, learning_rate=0.002)
    cells = {method: build(method) for method in ("vanilla", "dfg", "resilinet")}

    settings = rj.TrainingSettings(runs=3, epochs=epochs, batch_size=256, seed=0)
    measured = rj.run_cells(network, rj.Resident(splits), cells, settings, rj.Progress())

    probability = np.array(network.graph.node_values(failures))
    return {method: rj.average_accuracy(runs.accuracy, probability) for method, runs in measured.items()}


if __name__ == "__main__":
    for method, accuracy in main().items():
        print(f"{method:10}{100 * accuracy.mean():5.1f} ± {100 * accuracy.std(ddof=1):.1f} %")
