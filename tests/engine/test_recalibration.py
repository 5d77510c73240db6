"""Statistics computed again for each failure combination, against plain loops; and those that all arrivals share."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resilinet_jax.cells import CellBuilder, inference_wiring
from resilinet_jax.datasets.feed import Resident, all_of
from resilinet_jax.datasets.splits import PADDING, Dataset, Examples, chance_of_counts
from resilinet_jax.datasets.splitting import draw_splits
from resilinet_jax.engine import passes
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.evaluation import apply_plan
from resilinet_jax.engine.plan import plan_applications
from resilinet_jax.engine.program import MOST_RUNS, Program, TrainingSettings
from resilinet_jax.engine.recalibration import representatives
from resilinet_jax.engine.training import batch_order, run_keys
from resilinet_jax.failures.combinations import all_combinations
from resilinet_jax.network.arrays import to_arrays
from resilinet_jax.network.forward import Variables
from resilinet_jax.runtime.kept_models import KeptModels
from resilinet_jax.scenarios.health import SCENARIO
from tests.helpers.blobs import BLOBS, SPLITS, Silent, asked
from tests.helpers.normalised import NETWORK, faded, forward
from tests.helpers.reference import CHAIN

pytestmark = pytest.mark.usefixtures("shared")

BUILD = CellBuilder(CHAIN, SCENARIO.failure_settings, failout_rate=0.0, learning_rate=0.02)
RATES = {"n1": 0.5, "n2": 0.3, "n3": 0.1}
SETTINGS = TrainingSettings(runs=2, epochs=3, batch_size=24, seed=3)
RUNNING = {"dfg": BUILD("dfg"), "resilinet": BUILD("resilinet", failout_rate=RATES)}
AGAIN = {name: cell._replace(recalibrated=np.float32(1)) for name, cell in RUNNING.items()}
CELLS = RUNNING | {f"{name} again": cell for name, cell in AGAIN.items()}
COMBINATIONS = all_combinations(CHAIN)
FAILING = COMBINATIONS.failing_sets
PEOPLE = Dataset("blobs of three people", BLOBS.x, BLOBS.y, np.repeat([7, 8, 9], [90, 130, 180]))


class Chunked(Resident):
    """The training split in two chunks, and changed at random unless that is not wanted."""

    chunks = 2

    def __init__(self, splits):
        super().__init__(splits)
        half = len(splits.train.y) // 2
        self.halves = [Examples(*(each[part : part + half] for each in splits.train)) for part in (0, half)]

    def spec(self, split):
        return (
            super().spec(split)
            if split != "train"
            else jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self.halves[0]))
        )

    def members(self, split):
        return super().members(split) if split != "train" else all_of(len(self.halves[0].y))

    def train(self, first, sharding, augmented=True):
        for number in itertools.count(first):
            x, y = self.halves[number % 2]
            yield jax.device_put(Examples(x + np.float32(0.1 * augmented), y), sharding)


def measure(feed, cells=CELLS, **changes):
    # Two trainings, one of them in two variants: passes of the same shape share what is compiled.
    kept = KeptModels()
    settings = dataclasses.replace(SETTINGS, **changes)
    return engine.run_cells(NETWORK, feed, cells, settings, Silent(), kept=kept), kept


def made(kind):
    if kind == "several splits":
        return Resident(draw_splits(PEOPLE, asked("leave_one_subject_out")))
    return Chunked(SPLITS) if kind == "chunks" else Resident(SPLITS)


@pytest.fixture(scope="module")
def measured():
    return measure(made("one split"))


def chunks_of(feed, split):
    """Examples of each chunk and its batches' rows, of run 1."""
    keys, own = run_keys(SETTINGS.seed, MOST_RUNS * split + 1), feed.members("train").of(split)
    padded = feed.members("train").padded
    order = jax.jit(lambda number: batch_order(keys.chunks, number, own.rows, SETTINGS.batch_size, padded))
    chunks = feed.train(0, jax.local_devices()[0], augmented=False)
    for number, chunk in enumerate(itertools.islice(chunks, feed.chunks)):
        batches = [rows for rows in np.asarray(order(number)) if (rows != PADDING).all()]
        yield [np.asarray(own.take(Examples(*map(np.asarray, chunk)), rows).x) for rows in batches]


def said(feed, chunks, arrays, cell, split, failing):
    """The accuracy with statistics of the training split's chunks under this failure combination, in plain loops."""
    settings = failing, float(cell.inference_activity), cell.present
    met = [forward(arrays, x, *settings)[2] for batches in chunks for x in batches]
    known = {node: tuple(faded([each[node][part] for each in met]) for part in (0, 1)) for node in met[0]}
    own, parts = feed.members("test").of(split), feed.held_out("test", jax.local_devices()[0])
    x, y = own.take(Examples(*map(np.asarray, next(parts))), own.rows[own.rows != PADDING])
    logits, informed, _ = forward(arrays, x, *settings, known)
    return (
        (logits.argmax(1) == y).mean()
        if informed
        else chance_of_counts(*(feed.class_counts(part)[split] for part in ("train", "test")))
    )


@pytest.mark.parametrize("kind", ["one split", "several splits", "chunks"])
def test_recalibrated_accuracies_are_those_of_plain_loops(kind, request):
    feed = made(kind)
    got, kept = request.getfixturevalue("measured") if kind == "one split" else measure(feed)
    for split in range(len(feed.labels)):
        chunks = list(chunks_of(feed, split))
        for name, cell in AGAIN.items():
            arrays = kept[cell.training_key(), MOST_RUNS * split + 1]
            expected = [said(feed, chunks, arrays, cell, split, failing) for failing in FAILING]
            np.testing.assert_allclose(got[f"{name} again"].score[2 * split + 1], expected, atol=1e-6)
    # Under some combination it makes a difference; without a path it can't.
    for name in AGAIN:
        differs = got[f"{name} again"].score != got[name].score
        assert differs.any()
        assert not differs[:, FAILING.index(("n1", "n2"))].any()


def test_a_training_serves_both_and_running_statistics_stay_as_they_were(measured, monkeypatch):
    assert all(AGAIN[name].training_key() == RUNNING[name].training_key() for name in RUNNING)

    def fail(*given):
        raise AssertionError("recalibrated although no cell asks for it")

    monkeypatch.setattr(passes, "_recalibrated_tally", fail)
    monkeypatch.setattr(Program, "compile_recalibration", fail)
    added = BUILD("resilinet", failout_rate=RATES, inference_activity=1.0)
    alone, kept = measure(made("one split"), RUNNING | {"added": added})
    for name in RUNNING:
        for field, beside in zip(alone[name], measured[0][name]):
            np.testing.assert_array_equal(field, beside)
        arrays = measured[1][RUNNING[name].training_key(), 1]
        assert all((kept[RUNNING[name].training_key(), 1][path] == array).all() for path, array in arrays.items())


def test_stacking_recalibrates_the_same_but_for_rounding(measured):
    stacked, _ = measure(made("one split"), stack=4)
    for name, runs in stacked.items():
        np.testing.assert_allclose(runs.score, measured[0][name].score, atol=2.01 / len(SPLITS.test.y))


def test_a_run_that_diverged_is_missing_and_harms_no_other(measured):
    running, again = (BUILD("dfg", learning_rate=1e30, statistics=each) for each in ("running", "recalibrated"))
    cells = {"dfg": RUNNING["dfg"], "again": AGAIN["dfg"], "diverged": again, "diverged as well": running}
    got, _ = measure(made("one split"), cells)
    assert np.isnan([got["diverged"].score, got["diverged as well"].score]).all()
    np.testing.assert_array_equal(got["again"].score, measured[0]["dfg again"].score)


def test_every_answer_has_a_combination_that_gives_it():
    plan = plan_applications(CHAIN, COMBINATIONS.survival)
    masks = representatives(plan, COMBINATIONS.survival)
    np.testing.assert_array_equal(plan_applications(CHAIN, masks).cloud, np.arange(plan.answers))
    silent = COMBINATIONS.survival[[FAILING.index(("n1", "n2"))]]
    assert representatives(plan_applications(CHAIN, silent), silent).shape == (1, 3)


def test_shared_statistics_are_of_all_steps_in_which_a_node_sent():
    rng = np.random.default_rng(2)
    batches = rng.normal(size=(9, 16, 4)).astype(np.float32)
    masks = (rng.random((9, 3)) > [0.6, 0.3, 0.2]).astype(np.float32)
    variables = jax.jit(NETWORK.init)(jax.random.key(0), batches[0])
    cell = BUILD("resilinet_select", failout_rate=RATES, statistics="shared")
    wiring = inference_wiring(cell, jnp.ones(7))._replace(shared_statistics=cell.shared_statistics)
    step = jax.jit(
        lambda known, x, mask: NETWORK.apply(Variables(variables.params, known), x, mask, wiring, jax.random.key(1))
    )
    known, met = variables.statistics, []
    arrays = to_arrays(variables)
    for x, mask in zip(batches, masks):
        known = step(known, x, mask).statistics
        failing = [node for node, lives in zip(CHAIN.fallible, mask) if not lives]
        met.append(forward(arrays, x, failing, 0, cell.present)[2])
    expected = {}
    for node in CHAIN.order[1:]:
        sent = [each[node] for each in met if node in each]
        assert len(sent) > 0
        np.testing.assert_array_equal(known[node].seen, [len(sent), *[0] * (len(known[node].seen) - 1)])
        expected[node] = tuple(faded([each[part] for each in sent]) for part in (0, 1))
        for name, value in zip(("mean", "variance"), expected[node]):
            np.testing.assert_allclose(known[node].values[name][0], value, rtol=1e-4, atol=1e-5)
    # At inference the only ones there are serve every arrival, and nothing has to be said about it.
    plan = plan_applications(CHAIN, COMBINATIONS.survival)
    given = inference_wiring(cell, jnp.ones(7)), plan, batches[0]
    logits = jax.jit(lambda known: apply_plan(NETWORK, Variables(variables.params, known), *given))(known).value
    for failing, answer in zip(FAILING, plan.cloud):
        said, informed, _ = forward(arrays, batches[0], failing, 0, cell.present, expected)
        if informed:
            np.testing.assert_allclose(logits[answer], said, rtol=1e-3, atol=1e-4)


def test_one_arrival_in_training_makes_shared_statistics_those_by_arrival(measured):
    assert BUILD("dfg", statistics="shared").key() == BUILD("dfg").key()
    forced = BUILD("dfg")._replace(shared_statistics=np.float32(1))
    shared, added = (
        BUILD("resilinet", failout_rate=RATES, statistics="shared", inference_activity=activity) for activity in (0, 1)
    )
    got, _ = measure(made("one split"), {"forced": forced, "shared": shared, "added": added})
    np.testing.assert_array_equal(got["forced"].score, measured[0]["dfg"].score)
    np.testing.assert_array_equal(got["forced"].loss, measured[0]["dfg"].loss)
    # Training normalises by each batch's own statistics, so it is the same; only what is kept of them differs.
    np.testing.assert_array_equal(got["shared"].loss, measured[0]["resilinet"].loss)
    assert (got["shared"].score != measured[0]["resilinet"].score).any()
