"""Numbers that are predicted, against plain loops and scikit-learn."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from resilinet_jax.command.ingredients import check_targets
from resilinet_jax.datasets.feed import Resident, first_split
from resilinet_jax.datasets.parts import draw_parts
from resilinet_jax.datasets.splits import Dataset, Splits
from resilinet_jax.datasets.splitting import draw_splits, split_dataset
from resilinet_jax.engine import run_cells as engine
from resilinet_jax.engine.program import MOST_RUNS, Selection
from resilinet_jax.engine.training import absolute_error, squared_error
from resilinet_jax.errors import UserError
from resilinet_jax.failures.combinations import all_combinations, choose_combinations
from resilinet_jax.network.graph import build_chain
from resilinet_jax.results.metrics import r2
from resilinet_jax.runtime.kept_models import KeptModels
from tests.helpers.blobs import BUILD, PEOPLE, SETTINGS, Silent, answers_of, asked, with_outputs
from tests.helpers.reference import CHAIN

pytestmark = pytest.mark.usefixtures("shared")

RNG = np.random.default_rng(1)
X = RNG.normal(size=(400, 4)).astype(np.float32)
# Of units far apart, and the first far from 0.
Y = np.stack([2000 + 30 * X[:, 0] + RNG.normal(size=400), 1e-3 * X[:, 2]], 1)
DATA = Dataset("oven", X, Y, PEOPLE, target_names=("heat", "flow"))
TWO = with_outputs(2)
CELLS = {"vanilla": BUILD("vanilla"), "dfg": BUILD("dfg")}
FAILING = all_combinations(CHAIN).failing_sets


def trained(feed, kept=None, **changes):
    settings = dataclasses.replace(SETTINGS, **{"runs": 1, "epochs": 3} | changes)
    return engine.run_cells(TWO, feed, CELLS, settings, Silent(), kept=kept)


def expected(predicted, y, train):
    """MSE and MAE of each target, by scikit-learn, and those of the training mean; and the mean R²."""
    mean = np.broadcast_to(train.mean(0), y.shape)
    errors = [
        error(y, guess, multioutput="raw_values")
        for guess in (predicted, mean)
        for error in (reference.mean_squared_error, reference.mean_absolute_error)
    ]
    return np.stack(errors, -1), np.mean(1 - errors[0] / errors[2])


def test_what_only_a_smaller_split_or_a_feed_of_one_s_own_lacks_is_refused():
    feed = Resident(draw_splits(DATA, asked("leave_one_subject_out")))
    with pytest.raises(UserError, match="a batch must be of at most the 160 examples of a chunk, got 200"):
        trained(feed, batch_size=200)
    feed.members = lambda part: Resident.members(feed, part)._replace(targets=None)
    with pytest.raises(UserError, match="members must have targets, what standardises them"):
        trained(feed)


@pytest.mark.parametrize("split", ["leave_one_subject_out", "random"])
def test_errors_are_those_of_scikit_learn_in_plain_loops(split):
    kept = KeptModels()
    runs = trained(Resident(draw_splits(DATA, asked(split))), kept)
    parts, _ = draw_parts(DATA, split, seed=0)
    uninformed = {"vanilla": FAILING[1:], "dfg": [each for each in FAILING if {"n1", "n2"} <= {*each}]}
    for name, cell in CELLS.items():
        for run, part in enumerate(parts):
            number, train = MOST_RUNS * part.number, Y[part.train]
            x = (X[part.test] - X[part.train].mean(0)) / X[part.train].std(0)
            answers = answers_of(kept[cell.training_key(), number], cell, number, x)
            for at, (said, informed) in enumerate(answers):
                assert informed != (FAILING[at] in uninformed[name] or {"n2", "n3"} <= {*FAILING[at]})
                guess = said * informed * train.std(0) + train.mean(0)
                errors, r2 = expected(guess, Y[part.test], train)
                np.testing.assert_allclose(runs[name].outcomes[run, at], errors, rtol=2e-4)
                assert runs[name].score[run, at] == pytest.approx(r2, abs=2e-4)
                assert informed or runs[name].score[run, at] == 0
        assert (runs[name].score[:, 0] > 0.1).all(), "something was learned"


def test_each_person_alone_gives_what_all_give():
    everybody = trained(Resident(draw_splits(DATA, asked("leave_one_subject_out"))))
    alone = trained(Resident(draw_splits(DATA, asked("leave_one_subject_out", test_subject="9"))))
    for name in CELLS:
        for all_of, own in zip(everybody[name], alone[name]):
            np.testing.assert_array_equal(all_of[2], own[0])


def test_a_chunk_that_is_not_full_counts_no_padding(monkeypatch):
    whole = trained(Resident(split_dataset(DATA, "random", seed=0)))
    monkeypatch.setattr("resilinet_jax.datasets.feed.HELD_OUT", 32)  # of 40
    chunks = trained(Resident(split_dataset(DATA, "random", seed=0)))
    for name in CELLS:
        np.testing.assert_allclose(chunks[name].outcomes, whole[name].outcomes, rtol=1e-5)


def test_the_squared_error_finds_the_mean_and_the_absolute_error_the_median():
    y = np.stack([RNG.permutation(np.r_[np.zeros(300), np.full(100, 8.0)]) for _ in range(2)], 1)  # mean 2, median 0
    feed = Resident(split_dataset(Dataset("skewed", 0 * X, y, target_names=("a", "b")), "random", seed=0))
    test = first_split(feed, "test").y
    found = {}
    for loss in (squared_error, absolute_error, None):
        runs = trained(feed, loss=loss, epochs=12, selection=Selection(last=True))
        found[loss] = runs["vanilla"].outcomes[0, 0]
    np.testing.assert_array_equal(found[None], found[squared_error])
    np.testing.assert_allclose(found[squared_error][:, 0], found[squared_error][:, 2], rtol=0.05)
    median = np.abs(y[:, 0]).max() * (np.asarray(test) > 0).mean(0)  # the mean absolute error of always saying 0
    np.testing.assert_allclose(found[absolute_error][:, 1], median, rtol=0.1)


def test_losses_by_hand():
    predicted, y = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[3.0, 2.0], [-1.0, 2.0]])
    np.testing.assert_allclose(squared_error(predicted, y), [2.0, 2.5])
    np.testing.assert_allclose(absolute_error(predicted, y), [1.0, 1.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_names": ()}, "y must be integers of shape .*; for numbers, give target_names"),
        ({"target_names": ("heat",)}, r"y must be numbers of shape \(400, 1\), a column for each target name"),
        ({"target_names": ("a", "a")}, r"target_names must be different texts, .* got \('a', 'a'\)"),
        ({"y": np.where(np.arange(400)[:, None] == 3, np.nan, Y)}, "example 3 has NaN or infinity to predict"),
        ({"y": np.stack([Y[:, 0], np.ones(400)], 1)}, "flow is the same in all training examples"),
    ],
)
def test_what_can_t_be_predicted_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        split_dataset(dataclasses.replace(DATA, **changes), "random", seed=0)


@functools.cache
def trained_on(split, offset=0.0, unit=1.0):
    data = dataclasses.replace(DATA, y=offset + unit * Y)
    return trained(Resident(draw_splits(data, asked(split))), epochs=1)


@pytest.mark.parametrize(("offset", "unit"), [(1e9, 1.0), (1.7e9, 60.0), (0.0, 1e-40), (0.0, 1e40)])
@pytest.mark.parametrize("split", ["random", "leave_one_subject_out"])
def test_no_unit_and_no_offset_changes_what_is_explained(split, offset, unit):
    plain, moved = trained_on(split), trained_on(split, offset, unit)
    for name in CELLS:
        np.testing.assert_allclose(moved[name].score, plain[name].score, atol=2e-4)
        heat = [runs[name].outcomes[..., 0, :] for runs in (plain, moved)]
        np.testing.assert_allclose(heat[1], heat[0] * np.array([unit**2, unit] * 2), rtol=2e-3)


def test_a_target_that_is_the_mean_everywhere_is_left_out():
    errors = np.array([[1.0, 1.0, 4.0, 2.0], [0.1, 0.1, 0.0, 0.0]])
    assert r2(errors) == 0.75
    assert np.isnan(r2(np.full((2, 4), np.nan))), "a run that diverged"


def test_graphs_of_which_not_all_combinations_are_evaluated_are_refused():
    chain = build_chain(("i", *(f"n{number}" for number in range(16)), "cloud"))
    few = choose_combinations(chain, [np.full(16, 0.05)], 0.5)
    with pytest.raises(UserError, match=r"16 nodes and links .* too many .*; let at most 14 fail"):
        check_targets("accuracy", ("heat",), few)
    check_targets("accuracy", (), few)


def test_splits_of_ones_own_are_standardised_as_well():
    own = split_dataset(DATA, "random", seed=0)
    recorded = [
        part._replace(y=(own.target_scaling.centre + own.target_scaling.scale * part.y).astype(np.float32))
        for part in own[:3]
    ]
    bare = Splits(*recorded, classes=2, target_names=("heat", "flow"))
    given, made = trained(Resident(own)), trained(Resident(bare))
    np.testing.assert_allclose(made["dfg"].outcomes, given["dfg"].outcomes, rtol=5e-3)


def test_a_single_number_may_be_flat_and_whole():
    one = Dataset("one", X, np.arange(400), target_names=("n",))
    assert (one.y.shape, one.classes) == ((400, 1), 1)


def test_a_feature_that_is_the_target_in_disguise_is_told():
    honest = dataclasses.replace(DATA, y=np.stack([X[:, 0] * X[:, 1], X[:, 2] + X[:, 3]], 1))
    seen = dataclasses.replace(honest, x=np.c_[X, 5 - honest.y[:, 0] / 7], feature_names=("a", "b", "c", "d", "e"))
    notes = " ".join(split_dataset(seen, "random", seed=0).notes)
    assert "Feature e alone tells what is to be predicted: is it that in disguise?" in notes
    assert "in disguise" not in " ".join(split_dataset(honest, "random", seed=0).notes)


def test_blocks_are_cut_by_person_whatever_the_numbers_are():
    parts, _ = draw_parts(DATA, "block", seed=0)
    assert {*PEOPLE[parts[0].test]} == {7, 8, 9, 10}
