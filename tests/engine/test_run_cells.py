import contextlib
import dataclasses
import logging
import math
import os
import signal

import jax
import numpy as np
import pytest

from resilinet_jax.cells import Learned, draw_weight
from resilinet_jax.datasets import feed
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.splits import PADDING, chance_accuracy
from resilinet_jax.engine import pass_size, program
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.program import Program, Selection
from resilinet_jax.engine.run_cells import plan_trainings, run_cells
from resilinet_jax.engine.training import run_keys
from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.runtime.checkpoints import Checkpoints
from resilinet_jax.runtime.interruption import signals_heeded
from resilinet_jax.runtime.kept_models import KeptModels
from resilinet_jax.runtime.store import Measured, Store
from resilinet_jax.sweeps import load_sweep, sweep_names
from tests.helpers.blobs import BUILD, CELLS, NETWORK, SETTINGS, SPLITS, Silent, said_by
from tests.helpers.reference import CHAIN

pytestmark = pytest.mark.usefixtures("shared")

CHANCE = chance_accuracy(SPLITS.train.y, SPLITS.test.y)
TWO_CELLS = {name: CELLS[name] for name in ("dfg", "resilinet")}


def measure(cells, splits=SPLITS, progress=None, store=None, checkpoints=None, kept=None, **changes):
    # By two, one for each device: passes of the same shape share what is compiled.
    settings = dataclasses.replace(SETTINGS, **{"runs_per_pass": 2, **changes})
    return run_cells(NETWORK, Resident(splits), cells, settings, progress or Silent(), None, store, checkpoints, kept)


def run(cells, splits=SPLITS, **changes):
    return {name: measured.score for name, measured in measure(cells, splits, **changes).items()}


KEPT = KeptModels()


@pytest.fixture(scope="module")
def undisturbed():
    return measure(CELLS, kept=KEPT)


@pytest.fixture(scope="module")
def together(undisturbed):
    return {name: measured.score for name, measured in undisturbed.items()}


def test_sharded_over_two_devices():
    models = engine.assemble(engine.plan_models({"dfg": CELLS["dfg"]}, range(3)), 1, SETTINGS.seed)
    placed, mesh = Program(NETWORK, Resident(SPLITS), SETTINGS, all_combinations(CHAIN)).place(models)
    assert mesh.size == 2
    assert {shard.data.shape for shard in placed.order.addressable_shards} == {(2,)}
    assert placed.order.tolist() == [0, 1, 2, 2]  # as many on either


def test_a_run_alone_equals_the_same_run_among_others(together):
    for name in ("resilinet", "drawn"):
        np.testing.assert_array_equal(run({name: CELLS[name]}, runs=1)[name], together[name][:1])
    # The others were cells of the same run, which has the same batches; beside another run it has its own as well.
    np.testing.assert_array_equal(run({"dfg": CELLS["dfg"]}, runs=2)["dfg"], together["dfg"][:2])


def test_what_is_held_out_may_come_in_chunks_and_their_parts(undisturbed, monkeypatch):
    shares = []

    class Heard(Silent):
        @contextlib.contextmanager
        def phase(self, what):
            with super().phase(what):
                yield shares.append

    monkeypatch.setattr(feed, "HELD_OUT", 18)
    monkeypatch.setattr(program, "BATCH", 8)
    chunks = list(Resident(SPLITS).held_out("test", None))
    assert [len(chunk.y) for chunk in chunks] == [18] * 3
    assert (chunks[2].y == PADDING).sum() == 14
    again = measure({"dfg": CELLS["dfg"]}, progress=Heard(), runs=2)["dfg"]
    for one, other in zip(again, undisturbed["dfg"]):
        np.testing.assert_array_equal(one, other[:2])
    assert shares[:9] == [each / 9 for each in range(1, 10)]  # three parts of each chunk


def test_kept_models_are_those_that_were_measured(undisturbed):
    for name, cell in CELLS.items():
        for run in range(SETTINGS.runs):
            said = said_by(KEPT[cell.training_key(), run], cell, run, *SPLITS.test, CHANCE)
            np.testing.assert_allclose(said, undisturbed[name].score[run], atol=1e-6)


def test_a_finished_run_without_its_model_is_trained_again(undisturbed):
    store, kept, told, cells = Store(), KeptModels(), Silent(), {"dfg": CELLS["dfg"]}
    finished = {(CELLS["dfg"].key(), run): Measured(*(leaf[run] for leaf in undisturbed["dfg"])) for run in range(2)}
    store.add(finished)
    trained = []
    told.next_pass = trained.extend
    measure(cells, store=store, runs=2, progress=told)
    assert not trained
    measure(cells, store=store, runs=2, kept=kept, progress=told)
    assert trained == ["dfg/run_0", "dfg/run_1"]
    name = CELLS["dfg"].training_key(), 1
    assert all((kept[name][path] == array).all() for path, array in KEPT[name].items())
    trained.clear()
    measure(cells, store=store, runs=2, kept=kept, progress=told)
    assert not trained


def test_a_run_of_any_number_trains_alone(together):
    alone = run({"dfg": CELLS["dfg"]}, runs=1, first_run=1)["dfg"]
    np.testing.assert_array_equal(alone, together["dfg"][1:2])


def test_runs_differ_from_each_other(together):
    assert len({tuple(row) for row in together["resilinet"]}) == SETTINGS.runs


def test_every_run_and_seed_has_keys_of_its_own():
    (training,) = plan_trainings({"dfg": CELLS["dfg"]})
    models = [engine.Model(training, run) for run in range(3)]
    keys = [engine.assemble(models, 1, seed).keys for seed in (0, 1)]
    data = np.concatenate([jax.random.key_data(key).reshape(-1, 2) for both in keys for key in both])
    assert len(np.unique(data, axis=0)) == 2 * 3 * 4


def test_drawn_weights_are_the_same_in_training_and_evaluation(together):
    drawn = draw_weight(CELLS["drawn"], run_keys(SETTINGS.seed, 0).weight)
    named = {edge.name: float(weight) for edge, weight in zip(CHAIN.hyperconnections, drawn)}
    fixed = BUILD("resilinet", weight=named, failout_rate=0.1)
    np.testing.assert_array_equal(run({"fixed": fixed}, runs=1)["fixed"], together["drawn"][:1])


def test_weights_are_told_as_they_ended(undisturbed):
    drawn = np.stack([draw_weight(CELLS["drawn"], run_keys(SETTINGS.seed, run).weight) for run in range(3)])
    np.testing.assert_array_equal(undisturbed["drawn"].weight, drawn)
    np.testing.assert_array_equal(undisturbed["dfg"].weight, np.ones((3, 7)))


def test_learned_weights_move_are_told_and_are_those_that_count():
    learned = measure({"learned": BUILD("resilinet", weight=Learned(1.0))}, runs=2, epochs=3)["learned"]
    moved = np.abs(learned.weight - 1)
    assert (moved > 1e-3).all()
    assert (moved < 0.9).all()
    assert (learned.weight[0] != learned.weight[1]).all()
    fixed = run({"resilinet": CELLS["resilinet"]}, runs=2, epochs=3)["resilinet"]
    assert (learned.score != fixed).any()


def test_the_epoch_is_selected_on_validation_and_reported_on_test(together):
    # No prediction equals the label -1, so all epochs tie at zero and the first is kept.
    blind = SPLITS.validation._replace(y=np.full_like(SPLITS.validation.y, -1))
    cells = {"resilinet": CELLS["resilinet"]}
    tied = run(cells, SPLITS._replace(validation=blind))["resilinet"]
    np.testing.assert_array_equal(tied, run(cells, epochs=1)["resilinet"])
    assert (tied != together["resilinet"]).any()
    # Of seven test examples with a label, no more can be right.
    seven = SPLITS.test._replace(y=np.where(np.arange(40) < 7, SPLITS.test.y, PADDING))
    right = 40 * run(cells, SPLITS._replace(test=seven))["resilinet"][:, 0]
    np.testing.assert_allclose(right, np.round(right), atol=1e-5)
    assert (right > 0.5).all()
    assert (right < 7.5).all()


def test_a_run_that_diverged_is_missing_and_harms_no_other(together):
    # The second loses its way only after an epoch that could be selected.
    late = BUILD("dfg", learning_rate=1e-2, learning_rate_decay=1.0)._replace(learning_rate_decay=np.float32(1e12))
    finite = BUILD("dfg", learning_rate=1e6)
    cells = {"dfg": CELLS["dfg"], "diverged": BUILD("dfg", learning_rate=1e30), "late": late, "finite": finite}
    measured = measure(cells)
    assert np.isfinite(measured["finite"].loss).all()
    for name in ("diverged", "late", "finite"):
        assert np.isnan(measured[name].score).all()
        assert measured[name].diverged == [0, 1, 2]
    assert np.isfinite(measured["late"].loss[:, 0]).all()
    np.testing.assert_array_equal(measured["dfg"].score, together["dfg"])
    assert measured["dfg"].diverged == []


def test_survival_scaling_reaches_the_evaluation():
    scaled, plain = (BUILD("resilinet", failout_rate=0.5, survival_scaling=scaled) for scaled in (True, False))
    accuracy = run({"scaled": scaled, "plain": plain}, runs=2)
    assert (accuracy["scaled"] != accuracy["plain"]).any()


def test_passes_of_the_same_shape_share_one_compilation(together, monkeypatch, caplog):
    monkeypatch.setattr(pass_size, "_remembered", lambda trial, measure_now: measure_now())
    monkeypatch.setattr(pass_size, "EPOCH_SECONDS", 1e-9)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run({name: CELLS[name] for name in ("vanilla", "dfg")}, runs=2, epochs=1, runs_per_pass=None)
    compiled = [record.getMessage() for record in caplog.records]
    # Only the trial that told how large a pass may be.
    assert sum(message.startswith("Compiling jit(train)") for message in compiled) == 1


def test_passes_cover_every_model_once_and_evenly():
    assert [list(each) for each in engine.cut_into_passes(range(7), 3)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(each) for each in engine.cut_into_passes(range(70), 20)] == [18, 18, 17, 17]
    assert [len(each) for each in engine.cut_into_passes(range(5), 100)] == [5]
    assert engine.cut_into_passes(range(0), 3) == []


def test_passes_stay_the_same_once_the_first_ones_are_finished():
    for total, most in ((10, 4), (41, 20), (100, 33), (7, 1)):
        first, *others = engine.cut_into_passes(range(total), most)
        assert engine.cut_into_passes(range(len(first), total), most) == others


def test_passes_that_hold_little_give_the_same(together, monkeypatch):
    monkeypatch.setattr(pass_size, "_remembered", lambda trial, measure_now: measure_now())
    monkeypatch.setattr(pass_size, "CPU_BYTES", 1)
    cells = {name: CELLS[name] for name in ("dfg", "drawn")}
    for name, accuracy in run(cells, runs_per_pass=None).items():
        np.testing.assert_array_equal(accuracy, together[name])


def test_stacking_by_vmap_gives_the_same_but_for_rounding(together):
    # An example near a decision boundary may fall to the other side: allow one of the 40.
    for name, accuracy in run(CELLS, stack=4).items():
        np.testing.assert_allclose(accuracy, together[name], atol=1.01 / len(SPLITS.test.y))


def test_vanilla_guesses_in_expectation_whenever_a_node_fails(together):
    assert (together["vanilla"][:, 0] > 0.6).all()
    np.testing.assert_allclose(together["vanilla"][:, 1:], CHANCE, rtol=1e-6)


def all_cells():
    return {
        f"{name}/{cell}": numbers for name in sweep_names() for cell, numbers in load_sweep(name).cells(BUILD).items()
    }


def test_the_last_epoch_counts_on_request(undisturbed):
    last = run(CELLS, selection=Selection(last=True))
    best = np.concatenate([each.validation_score.argmax(-1) for each in undisturbed.values()])
    was_best = best == SETTINGS.epochs - 1
    same = np.concatenate([(last[name] == each.score).all(-1) for name, each in undisturbed.items()])
    assert was_best.any()
    assert same[was_best].all()
    assert not same.all()


# The second: only n1 and n2 fail, never both, so that the graph always has a path, and vanilla has not.
@pytest.mark.parametrize(("cell", "count"), [("dfg", 8), ("vanilla", 3)])
def test_the_average_under_failures_selects_on_request(cell, count):
    # Skips of either are as active at inference as in training, and here they are tested on what selects their epoch.
    combinations = all_combinations(CHAIN)
    survival, probability = combinations.survival[:count], combinations.probabilities(np.array([0.3, 0.2, 0.1]))[:count]
    probability = probability / probability.sum()
    selection = Selection(survival, probability)
    splits = SPLITS._replace(test=SPLITS.validation)
    found = measure({cell: CELLS[cell]}, splits, runs=2, selection=selection)[cell]
    np.testing.assert_allclose(found.score[:, :count] @ probability, found.validation_score.max(-1), rtol=1e-6)
    # Where nothing arrives it guesses, as often right as the labels of that part let it: the test split has no say.
    same = splits._replace(test=splits.test._replace(y=np.zeros_like(splits.test.y)))
    again = measure({cell: CELLS[cell]}, same, runs=2, selection=selection)[cell]
    np.testing.assert_array_equal(again.validation_score, found.validation_score)


def test_an_average_leaves_out_what_cant_happen():
    combinations, settings = all_combinations(CHAIN), {"no failure": {}, "normal": {"n1": 0.2}, "poor": {"n2": 0.5}}
    selection = Selection.by("average", combinations, settings)
    np.testing.assert_array_equal(selection.survival, [[1, 1, 1], [0, 1, 1]])
    np.testing.assert_allclose(selection.probability, [0.8, 0.2])
    assert [Selection.by(name, combinations, settings).last for name in ("no_failure", "last")] == [False, True]


def test_batches_larger_than_the_training_split_are_refused():
    with pytest.raises(UserError, match="a batch must be of at most the 320 examples of a chunk, got 1,000"):
        run({"dfg": CELLS["dfg"]}, batch_size=1000)


def test_literal_equals_add_where_every_skip_has_to_stand_in():
    methods = {name: BUILD(name) for name in ("resilinet_literal", "resilinet_add")}
    literal, add = run(methods, runs=2).values()
    failing_sets = all_combinations(CHAIN).failing_sets
    silent = [failing_sets.index(failing) for failing in (("n2",), ("n1", "n3"))]
    np.testing.assert_array_equal(literal[:, silent], add[:, silent])
    assert (literal[:, 0] != add[:, 0]).all()


def test_no_cell_of_all_sweeps_is_trained_twice():
    # vanilla, dfg, resilinet; weights 3 (reliability) + 4 (relative) + 2 (drawn) + 1 (learned); failout 10, 30, 50 %
    # and 3 by setting, as the builder's own 30 % is shared, 9 more of 13 finely; skip configurations 6; activities 4;
    # failure models 3, as nothing fails together; skip layers 3; learning rates 3 beside the builder's, for 4 methods.
    # Statistics nothing, as this network keeps none.
    cells = all_cells()
    trainings = plan_trainings(cells)
    keys = [training.cell.training_key() for training in trainings]
    assert len(set(keys)) == len(keys) == 3 + 10 + 3 + 3 + 9 + 6 + 4 + 3 + 3 + 12
    variants = {variant.key() for training in trainings for variant in training.variants}
    assert variants == {cell.key() for cell in cells.values()}
    for training in trainings:
        for variant in training.variants:
            assert variant.training_key() == training.cell.training_key()


def test_the_training_function_compiles_once_for_all_sweeps(caplog, monkeypatch):
    cells = all_cells()
    assert len(cells) > 40
    monkeypatch.setattr(engine, "Program", Program)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        accuracy = run(cells, runs=1, epochs=2, runs_per_pass=None)
    compiled = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling jit(")]
    for function in ("start", "train", "validate", "finish_epoch", "test"):
        # Once more for the cell whose weights are learned.
        assert sum(message.startswith(f"Compiling jit({function})") for message in compiled) == 2, compiled
    # Cells that share a training differ at inference.
    assert (accuracy["skip_activity/activity_1_add"] != accuracy["skip_activity/activity_1_select"]).any()
    np.testing.assert_array_equal(accuracy["skip_configuration/skips_none"], accuracy["failure_combinations/vanilla"])


class TestMemory:
    """A pass that does not fit: here, one of more models than `most`."""

    @pytest.fixture
    def tried(self, monkeypatch):
        seen, run = [], engine.run_pass

        def limited(program, models, progress, checkpoints):
            seen.append(len(models.order))
            if len(models.order) > self.most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
            return run(program, models, progress, checkpoints)

        monkeypatch.setattr(engine, "run_pass", limited)
        return seen

    def test_goes_on_with_half_as_many_and_measures_the_same(self, tried, together):
        self.most = 2
        got = run(TWO_CELLS, runs_per_pass=None)
        assert tried == [6, 3, 2, 1, 2, 1]  # the three that wait are halved as well
        for name, accuracy in got.items():
            np.testing.assert_array_equal(accuracy, together[name])

    def test_no_pass_is_larger_than_asked_for(self, tried):
        self.most = 100
        run({"dfg": CELLS["dfg"]}, runs_per_pass=2)
        assert tried == [2, 1]

    def test_says_so_where_a_single_run_does_not_fit(self, tried):
        self.most = 0
        with pytest.raises(UserError, match="not even one run fits memory"):
            run({"dfg": CELLS["dfg"]}, runs_per_pass=None)
        assert tried == [3, 2, 1]


class TestInterrupted:
    """A sweep that is stopped after so many epochs, and its command given again."""

    class Stop(Silent):
        def __init__(self, after):
            super().__init__()
            self.after, self.trained = after, 0

        def epoch(self, number, **kwargs):
            if self.trained == self.after:
                raise KeyboardInterrupt  # before this epoch's checkpoint
            self.trained += 1

    class Signal(Stop):
        def epoch(self, number, **kwargs):
            self.trained += 1
            if self.trained == self.after:
                os.kill(os.getpid(), signal.SIGTERM)

    def go(self, folder, after=100, cells=TWO_CELLS, seconds=0.0, stop=Stop, **changes):
        """What it measured, if it came to its end, and how many epochs it trained."""
        progress = stop(after)
        checkpoints = Checkpoints(folder / "checkpoints", warn=pytest.fail, seconds=seconds)
        try:
            measured = measure(cells, SPLITS, progress, Store(folder / "runs"), checkpoints, **changes)
        except KeyboardInterrupt:
            measured = None
        checkpoints.close()
        return measured, progress.trained

    @staticmethod
    def same(measured, expected):
        for name, got in measured.items():
            jax.tree.map(np.testing.assert_array_equal, got, expected[name])

    def test_goes_on_after_the_last_epoch_and_measures_the_same(self, tmp_path, undisturbed):
        trained = 0
        for after in (0, 4, 5, 100):
            measured, epochs = self.go(tmp_path, after, runs_per_pass=4)
            trained += epochs
        self.same(measured, undisturbed)
        assert trained == 2 * 6  # two passes of 6 epochs, each trained once
        assert not (tmp_path / "checkpoints").exists()

    def test_a_kill_loses_what_was_not_yet_saved_and_a_signal_nothing(self, tmp_path, undisturbed):
        rarely = {"seconds": math.inf, "runs": 2, "cells": {"dfg": CELLS["dfg"]}}
        assert self.go(tmp_path, 3, **rarely) == (None, 3)  # only the first epoch is saved
        with signals_heeded():
            assert self.go(tmp_path, 3, stop=self.Signal, **rarely) == (None, 3)  # 2, 3 and 4
        measured, trained = self.go(tmp_path, **rarely)
        assert trained == 2
        self.same(measured, {name: jax.tree.map(lambda leaf: leaf[:2], undisturbed[name]) for name in measured})

    def test_goes_on_with_the_interrupted_pass_though_passes_are_cut_otherwise(self, tmp_path, undisturbed):
        self.go(tmp_path, 3, runs_per_pass=2)
        measured, trained = self.go(tmp_path, runs_per_pass=4)
        self.same(measured, undisturbed)
        assert trained == 3 + 6  # the rest of two models, and the other four

    def test_goes_on_with_a_pass_that_would_seem_too_long_now(self, tmp_path, undisturbed, monkeypatch):
        self.go(tmp_path, 3, runs_per_pass=3)
        monkeypatch.setattr(pass_size, "EPOCH_SECONDS", 1e-9)  # two at a time
        measured, trained = self.go(tmp_path, runs_per_pass=None)
        self.same(measured, undisturbed)
        assert trained == 3 + 2 * 6  # the rest of three models, and the others by two

    def test_an_interrupted_pass_of_learned_weights_goes_before_all_others(self, tmp_path):
        learned = {"learned": BUILD("resilinet", weight=Learned(1.0))}
        self.go(tmp_path, 3, cells=learned, runs=2)
        measured, trained = self.go(tmp_path, cells={**TWO_CELLS, **learned}, runs=2)
        assert trained == 3 + 2 * 6
        self.same(measured, measure({**TWO_CELLS, **learned}, runs=2))

    def test_more_runs_train_only_the_new_ones(self, tmp_path, undisturbed):
        self.go(tmp_path, runs=2)
        measured, _ = self.go(tmp_path, runs=3)
        self.same(measured, undisturbed)
        names = [np.load(path)["run"] for path in sorted((tmp_path / "runs").glob("*.npz"))]
        assert sorted(np.concatenate(names).tolist()) == [0, 0, 1, 1, 2, 2]

    def test_finished_cells_are_not_trained_again(self, tmp_path, undisturbed, monkeypatch):
        self.go(tmp_path)
        monkeypatch.setattr(engine, "Program", None)
        measured, _ = self.go(tmp_path)
        self.same(measured, undisturbed)
        # Another sweep shares one of them, under another name.
        measured, _ = self.go(tmp_path, cells={"shared": CELLS["dfg"]}, runs=2)
        np.testing.assert_array_equal(measured["shared"].score, undisturbed["dfg"].score[:2])

    def test_what_a_kill_left_of_the_checkpoints_of_finished_runs_is_removed(self, tmp_path, monkeypatch):
        with monkeypatch.context() as killed:
            killed.setattr(Checkpoints, "discard", lambda self: None)
            self.go(tmp_path, runs=1)
        assert (tmp_path / "checkpoints").exists()
        self.go(tmp_path, runs=1)
        assert not (tmp_path / "checkpoints").exists()

    def test_a_finished_sweep_leaves_the_checkpoints_of_another_alone(self, tmp_path):
        finished, other = ({name: cell} for name, cell in TWO_CELLS.items())
        self.go(tmp_path, cells=finished, runs=2)
        self.go(tmp_path, 3, cells=other, runs=2)
        self.go(tmp_path, cells=finished, runs=2)
        assert self.go(tmp_path, cells=other, runs=2)[1] == 3

    def test_another_inference_of_a_finished_training_is_trained_again(self, tmp_path):
        cells = {"select": CELLS["resilinet"], "add": BUILD("resilinet", inference_activity=1.0)}
        self.go(tmp_path, cells={"select": cells["select"]}, runs=2)
        measured, _ = self.go(tmp_path, cells=cells, runs=2)
        self.same(measured, measure(cells, runs=2))
