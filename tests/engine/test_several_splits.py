"""Runs on several splits of one data set, as `run_cells` measures them."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from resilinet_jax.cells import make_cell
from resilinet_jax.command.settings import RANGES
from resilinet_jax.datasets.feed import Resident
from resilinet_jax.datasets.parts import MOST, draw_parts
from resilinet_jax.datasets.splits import PADDING, Dataset, Examples, chance_accuracy
from resilinet_jax.datasets.splitting import draw_splits
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.program import MOST_RUNS
from resilinet_jax.engine.training import batch_order, initial_state, run_keys, train_chunk
from resilinet_jax.runtime.kept_models import KeptModels
from tests.helpers.blobs import BLOBS, CELLS, NETWORK, PEOPLE, SETTINGS, Silent, asked, said_by
from tests.helpers.reference import CHAIN

pytestmark = pytest.mark.usefixtures("shared")

DATA = Dataset("blobs of four people", BLOBS.x, BLOBS.y, PEOPLE)
WANTED = {name: CELLS[name] for name in ("dfg", "drawn")}
KEPT = KeptModels()


TRAINED = []


class Told(Silent):
    def next_pass(self, runs):
        TRAINED.extend(runs)


def measure(split, kept=None, runs=2, **flags):
    settings = dataclasses.replace(SETTINGS, runs=runs, epochs=3)
    feed = Resident(draw_splits(DATA, asked(split, **flags)))
    return engine.run_cells(NETWORK, feed, WANTED, settings, Told(), kept=kept), feed


@pytest.fixture(scope="module")
def left_out():
    return measure("leave_one_subject_out", KEPT)[0]


def test_a_subject_alone_gives_bit_for_bit_what_it_gives_among_all(left_out):
    for place, person in enumerate(("7", "8", "9", "10")):
        alone, _ = measure("leave_one_subject_out", test_subject=person)
        for name, measured in alone.items():
            for field, among in zip(measured, left_out[name]):
                np.testing.assert_array_equal(field, among[2 * place : 2 * place + 2])


def test_numbers_of_runs_have_room_for_all_that_flags_allow():
    assert RANGES["runs"].high == RANGES["run"].high == MOST_RUNS
    assert MOST_RUNS * max(RANGES["splits"].high, MOST) < 2**31


def test_runs_are_called_by_numbers_whatever_subjects_are_called(left_out):
    assert set(TRAINED) >= {f"dfg/split_{split}/run_{run}" for split in range(4) for run in range(2)}
    assert all(re.fullmatch(r"\w+/(split_\d/)?run_\d", name) for name in TRAINED)


def test_runs_differ_between_splits_and_within_them(left_out):
    assert left_out["drawn"].score.shape == (8, 8)
    assert len({tuple(weight) for weight in left_out["drawn"].weight}) == 8


def test_every_split_is_tested_on_its_own_person_in_plain_loops(left_out):
    """Kept variables, own standardisation in float64, and NumPy say the same."""
    parts, _ = draw_parts(DATA, "leave_one_subject_out", seed=0)
    for name, cell in WANTED.items():
        for place, part in enumerate(parts):
            mean, deviation = DATA.x[part.train].mean(0), DATA.x[part.train].std(0)
            x, y = (DATA.x[part.test] - mean) / deviation, DATA.y[part.test]
            chance, number = chance_accuracy(DATA.y[part.train], y), MOST_RUNS * part.number + 1
            said = said_by(KEPT[cell.training_key(), number], cell, number, x, y, chance)
            np.testing.assert_allclose(left_out[name].score[2 * place + 1], said, atol=1e-6)
            if name == "dfg":  # whose skips are as active at inference as in training, and in validation
                held_out = (DATA.x[part.validation] - mean) / deviation, DATA.y[part.validation]
                said = said_by(KEPT[cell.training_key(), number], cell, number, *held_out, chance)
                best = left_out[name].validation_score[2 * place + 1].max()
                assert best == pytest.approx(said[0], abs=1e-6), "the epoch is selected on its own person"


def test_further_random_splits_leave_those_before_as_they_are():
    three, two = (measure("random", splits=count)[0] for count in (3, 2))
    for name, measured in two.items():
        np.testing.assert_array_equal(measured.score, three[name].score[:4])
    assert (three["dfg"].score[:2] != three["dfg"].score[2:4]).any()


def test_padding_trains_nothing_and_comes_last():
    rng = np.random.default_rng(0)
    chunk = Examples(rng.normal(size=(12, 4)).astype(np.float32), rng.integers(0, 3, 12).astype(np.int32))
    keys, cell = run_keys(0, 0), make_cell(CHAIN, training_activity=1.0, learning_rate=0.01)
    rows = np.r_[np.arange(1, 12), [PADDING] * 6].astype(np.int32)
    order = jax.jit(lambda: batch_order(keys.chunks, np.array(0), rows, 4, padded=True))()
    assert order.shape == (4, 4)
    flat = np.asarray(order).ravel()
    assert (flat[11:] == PADDING).all()
    np.testing.assert_array_equal(np.sort(flat[:11]), np.arange(1, 12))
    start = jax.jit(lambda: initial_state(NETWORK, keys, chunk.x))()

    def trained(order, padded):
        return jax.jit(lambda: train_chunk(NETWORK, None, start, cell, keys, chunk, order, None, padded))()

    (with_padding, loss), (without, same) = trained(order, True), trained(order[:2], False)
    for one, other in zip(jax.tree.leaves(with_padding.variables), jax.tree.leaves(without.variables)):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert float(loss) == pytest.approx(float(same), rel=1e-5)
