import dataclasses
import logging

import jax
import numpy as np
import pytest

from resilinet_jax import engine
from resilinet_jax.cells import CellBuilder, Uniform, draw_weight
from resilinet_jax.datasets.splits import Dataset, Examples, split_dataset
from resilinet_jax.engine import TrainingSettings, plan_trainings, run_cells
from resilinet_jax.errors import UserError
from resilinet_jax.feed import Resident
from resilinet_jax.network import Network
from resilinet_jax.progress import Progress
from resilinet_jax.scenarios.health import SCENARIO
from resilinet_jax.stages import DenseStage, dense
from resilinet_jax.training import run_keys
from sweeps import load_sweep, sweep_names
from tests.reference import CHAIN

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 400).astype(np.int32)
BLOBS = Dataset("blobs", (RNG.normal(size=(400, 4)) + 2 * np.eye(3, 4)[LABELS]).astype(np.float32), LABELS)
SPLITS = split_dataset(BLOBS, "random", seed=0)
NETWORK = Network(  # Health's graph with fewer layers, which compile faster
    CHAIN, {node: DenseStage(1, 8, 3 if node == "n4" else None) for node in CHAIN.order[1:]}, {"i->n2": dense(8)}
)
BUILD = CellBuilder(CHAIN, SCENARIO.failure_settings, failout_rate=0.3, learning_rate=0.01)
SETTINGS = TrainingSettings(runs=3, epochs=6, batch_size=32, seed=1)
CELLS = {
    "vanilla": BUILD("vanilla"),
    "dfg": BUILD("dfg"),
    "resilinet": BUILD("resilinet"),
    "drawn": BUILD("resilinet", weight=Uniform(0, 10), failout_rate=0.1),
}


class Silent(Progress):
    def _show(self, text):
        pass


def run(cells, **changes):
    return run_cells(NETWORK, Resident(SPLITS), cells, dataclasses.replace(SETTINGS, **changes), Silent())


@pytest.fixture(scope="module")
def together():
    return run(CELLS)


def test_sharded_over_two_devices():
    assert jax.local_device_count() == 2


def test_a_run_alone_equals_the_same_run_among_others(together):
    for name in ("resilinet", "drawn"):
        np.testing.assert_array_equal(run({name: CELLS[name]}, runs=1)[name], together[name][:1])


def test_runs_differ_from_each_other(together):
    assert len({tuple(row) for row in together["resilinet"]}) == SETTINGS.runs


def test_every_run_and_seed_has_keys_of_its_own():
    (training,) = plan_trainings({"dfg": CELLS["dfg"]})
    keys = [engine.assemble([(training, run) for run in range(3)], 1, 1, seed).keys for seed in (0, 1)]
    data = np.concatenate([jax.random.key_data(key).reshape(-1, 2) for both in keys for key in both])
    assert len(np.unique(data, axis=0)) == 2 * 3 * 3


def test_drawn_weights_are_the_same_in_training_and_evaluation(together):
    drawn = draw_weight(CELLS["drawn"], run_keys(SETTINGS.seed, 0).weight)
    named = {edge.name: float(weight) for edge, weight in zip(CHAIN.hyperconnections, drawn)}
    fixed = BUILD("resilinet", weight=named, failout_rate=0.1)
    np.testing.assert_array_equal(run({"fixed": fixed}, runs=1)["fixed"], together["drawn"][:1])


def test_the_epoch_is_selected_on_validation_and_reported_on_test(together):
    # No prediction equals the label -1, so all epochs tie at zero and the first is kept.
    blind = SPLITS.validation._replace(y=np.full_like(SPLITS.validation.y, -1))
    cells = {"resilinet": CELLS["resilinet"]}
    tied = run_cells(NETWORK, Resident(SPLITS._replace(validation=blind)), cells, SETTINGS, Silent())["resilinet"]
    np.testing.assert_array_equal(tied, run(cells, epochs=1)["resilinet"])
    assert (tied != together["resilinet"]).any()
    # Of seven test examples, only sevenths can be right.
    seven = Examples(SPLITS.test.x[:7], SPLITS.test.y[:7])
    few = run_cells(NETWORK, Resident(SPLITS._replace(test=seven)), cells, SETTINGS, Silent())["resilinet"][:, 0]
    np.testing.assert_allclose(few * 7, np.round(few * 7), atol=1e-5)
    assert (few > 0).all()


def test_a_run_that_diverged_is_missing_and_harms_no_other(together):
    accuracy = run({"dfg": CELLS["dfg"], "diverged": BUILD("dfg", learning_rate=1e30)})
    assert np.isnan(accuracy["diverged"]).all()
    np.testing.assert_array_equal(accuracy["dfg"], together["dfg"])


def test_survival_scaling_reaches_the_evaluation_and_nothing_else():
    cells = {
        f"{rate} {scaled}": BUILD("resilinet", failout_rate=rate, survival_scaling=scaled)
        for rate in (0.0, 0.5)
        for scaled in (False, True)
    }
    accuracy = run(cells)
    np.testing.assert_array_equal(accuracy["0.0 True"], accuracy["0.0 False"])
    assert (accuracy["0.5 True"] != accuracy["0.5 False"]).any()


def test_passes_of_the_same_shape_share_one_compilation(monkeypatch, caplog):
    monkeypatch.setattr(engine, "PASS_FLOPS", 1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run({name: CELLS[name] for name in ("vanilla", "dfg")}, runs=2, epochs=1)
    compiled = [record.getMessage() for record in caplog.records]
    assert sum(message.startswith("Compiling jit(train)") for message in compiled) == 1


def test_passes_cover_every_model_once_and_evenly():
    assert [list(members) for members in engine._passes(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [len(members) for members in engine._passes(range(70), 20)] == [18, 18, 18, 16]
    assert [len(members) for members in engine._passes(range(5), 100)] == [5]


def test_passes_that_hold_little_give_the_same(together, monkeypatch):
    monkeypatch.setattr(engine, "PASS_BYTES", 1)
    cells = {name: CELLS[name] for name in ("dfg", "drawn")}
    for name, accuracy in run(cells).items():
        np.testing.assert_array_equal(accuracy, together[name])


def test_stacking_by_vmap_gives_the_same_but_for_rounding(together):
    # An example near a decision boundary may fall to the other side: allow one of the 40.
    for name, accuracy in run(CELLS, stack=4).items():
        np.testing.assert_allclose(accuracy, together[name], atol=1.01 / len(SPLITS.test.y))


def test_vanilla_guesses_in_expectation_whenever_a_node_fails(together):
    assert (together["vanilla"][:, 0] > 0.6).all()
    np.testing.assert_allclose(together["vanilla"][:, 1:], SPLITS.chance, rtol=1e-6)


def all_cells():
    return {
        f"{name}/{cell}": numbers for name in sweep_names() for cell, numbers in load_sweep(name).cells(BUILD).items()
    }


def test_no_cell_of_all_sweeps_is_trained_twice():
    # vanilla, dfg, resilinet; weights 3 (reliability) + 4 (relative) + 2 (drawn); failout 10, 30, 50 % and 3 by
    # setting, as the builder's own 30 % is shared; skip configurations 6; activities 4.
    cells = all_cells()
    trainings = plan_trainings(cells)
    keys = [training.cell.training_key() for training in trainings]
    assert len(set(keys)) == len(keys) == 3 + 9 + 3 + 3 + 6 + 4
    assert sorted(name for t in trainings for names in t.names for name in names) == sorted(cells)
    for training in trainings:
        for (selection, variant), names in zip(training.variants, training.names):
            assert training.selections[selection] == variant.inference_activity
            for name in names:
                assert cells[name].training_key() == training.cell.training_key()
                np.testing.assert_array_equal(cells[name].inference_scale, variant.inference_scale)
                assert cells[name].inference_activity == variant.inference_activity


def test_the_training_function_compiles_once_for_all_sweeps(caplog):
    cells = all_cells()
    assert len(cells) > 40
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        accuracy = run(cells, runs=1)
    compiled = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling jit(")]
    for function in ("start", "train", "validate", "finish_epoch", "test"):
        assert sum(message.startswith(f"Compiling jit({function})") for message in compiled) == 1, compiled
    # Cells that share a training differ at inference.
    assert (accuracy["skip_activity/activity_1_add"] != accuracy["skip_activity/activity_1_select"]).any()
    np.testing.assert_array_equal(accuracy["skip_configuration/skips_none"], accuracy["failure_combinations/vanilla"])


class TestMemory:
    """A pass that does not fit: here, one of more models than `most`."""

    @pytest.fixture
    def tried(self, monkeypatch):
        seen, run = [], engine.Program.run

        def limited(program, models, progress):
            seen.append(len(models.selection))
            if len(models.selection) > self.most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
            return run(program, models, progress)

        monkeypatch.setattr(engine.Program, "run", limited)
        return seen

    def test_goes_on_with_half_as_many_and_measures_the_same(self, tried, together):
        self.most = 3
        got = run({name: CELLS[name] for name in ("dfg", "resilinet")})
        assert tried == [6, 3, 3]
        for name, accuracy in got.items():
            np.testing.assert_array_equal(accuracy, together[name])

    def test_no_pass_is_larger_than_asked_for(self, tried):
        self.most = 100
        run({"dfg": CELLS["dfg"]}, runs_per_pass=2)
        assert tried == [2, 1]

    def test_says_so_where_a_single_run_does_not_fit(self, tried):
        self.most = 0
        with pytest.raises(UserError, match="not even one run fits memory"):
            run({"dfg": CELLS["dfg"]})
        assert tried == [3, 2, 1]
