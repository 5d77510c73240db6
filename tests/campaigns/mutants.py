"""Plants small faults in the package, one at a time, and checks that a test finds each.

    python -m tests.campaigns.mutants                      # all, two at a time
    python -m tests.campaigns.mutants --only=network/      # those whose file or text holds this

A line for each mutant says which test file killed it, that it SURVIVED, or why it is equivalent: that no test can tell
it from the original. The exit status is not zero if one survived, or if one that is said to be equivalent was killed.

Every mutant is applied to a copy of the checkout in a temporary folder, never to the checkout itself. The tests run
there up to the first that fails: those that the mutant names, or else the file or folder that mirrors its own file.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from tests.helpers.process import ROOT


class Mutant(NamedTuple):
    """A fault to plant.

    Attributes:
      old: text that occurs once in the file.
      new: what takes its place.
      tests: files of tests, or single tests, that should kill it; by spaces. Empty for those that mirror its file.
      equivalent: why no test can kill it; empty if one should.
    """

    old: str
    new: str
    tests: str = ""
    equivalent: str = ""


TRAINING = "tests/engine/test_training.py"
NUMBERS = "tests/engine/test_predicted_numbers.py"
EVALUATION = "tests/engine/test_evaluation.py"
METRICS = "tests/results/test_metrics.py"
RUNS = "tests/engine/test_run_cells.py"
SPLITS = "tests/engine/test_several_splits.py"
AGAIN = "tests/engine/test_recalibration.py"
PARTS = "tests/datasets/test_parts.py"
DATA = "tests/datasets/test_splits.py"
TABLES = "tests/datasets/test_tables.py"
WINDOWS = "tests/datasets/test_windows.py"
IMAGES = "tests/datasets/test_own_images.py"
INSPECTION = "tests/datasets/test_inspection.py"
COMBINATIONS = "tests/failures/test_combinations.py"
MODELS = "tests/failures/test_failure_models.py"
FORWARD = "tests/network/test_forward.py"
MOBILENET = "tests/network/test_mobilenet.py"
MESSAGES = "tests/results/test_messages.py"
RESULTS = "tests/results/test_results.py"
SWEEPS = "tests/sweeps/test_sweeps.py"
CELLS = "tests/test_cells.py"
CERTIFICATES = "tests/deploy/test_certificates.py"
TRIAL = "tests/deploy/test_trial.py"

# By file in resilinet_jax/, where sweeps/ is installed as well.
MUTANTS: dict[str, list[Mutant]] = {
    "network/graph.py": [
        # Order of nodes, of hyperconnections, and of what may fail.
        Mutant("edge.is_skip, order.index(edge.source))", "edge.is_skip, -order.index(edge.source))"),
        Mutant("(order.index(edge.target), edge.is_skip,", "(order.index(edge.target), not edge.is_skip,"),
        Mutant("sorted(sorter.get_ready(), key=nodes.index)", "sorted(sorter.get_ready(), key=nodes.index)[::-1]"),
        Mutant("tuple(edge.name for edge in edges if edge.name in links)", "tuple(links)"),
        Mutant(
            "{name: (name,) for name in self.fallible} | dict(self.groups)",
            "dict(self.groups) | {name: (name,) for name in self.fallible}",
            MODELS,
        ),
        Mutant("values.get(name, 0.0)) for name in causes)", "values.get(name, 0.0)) for name in reversed(causes))"),
        Mutant(
            "self.order[len(self.sources) == 1 : -1]",
            "self.order[len(self.sources) : -1]",
            f"{MODELS}::test_information_probability_is_that_of_all_masks",
        ),
        Mutant("other.source == skip.source for other", "other.target == skip.target for other"),
    ],
    "network/senders.py": [
        # The gate looks at the first bypassed node; at the node instead of its link; never closes.
        Mutant("~brings[edge.bypassed[-1]]", "~brings.get(edge.bypassed[0], brings[edge.bypassed[-1]])"),
        Mutant("~brings[edge.bypassed[-1]]", "~sends[edge.bypassed[0]]"),
        Mutant("~brings[edge.bypassed[-1]]", "~sends[edge.bypassed[-1]]"),
        Mutant("& alive.get(edge.name, always) & exists[index]", "& exists[index]"),
        Mutant("& alive.get(edge.name, always) & exists[index]", "& alive.get(edge.name, always)"),
        Mutant("= carries & alive.get(node, always)", "= carries"),
    ],
    "network/forward.py": [
        Mutant("jnp.where(jnp.asarray(shared_statistics) > 0, 0, arrival)", "arrival", AGAIN),
        # Gates.
        Mutant(
            "simple[edge.bypassed[-1]]",
            "simple.get(edge.bypassed[0], simple[edge.bypassed[-1]])",
            f"{FORWARD}::test_a_skip_around_two_nodes_stands_in_for_the_last_link_of_its_path",
        ),
        Mutant(
            "jnp.maximum(wiring.activity[i], 1 - stands_for.sends)",
            "wiring.activity[i]",
            f"{FORWARD}::test_a_skip_around_two_nodes_stands_in_for_the_last_link_of_its_path",
        ),
        # Masks, and biases that leak past them.
        Mutant(
            "carried = wiring.present[i] * sent.sends",
            "carried = sent.sends",
            f"{FORWARD}::test_no_bias_of_an_adapter_leaks_over_a_silent_link",
        ),
        Mutant(
            "carried = wiring.present[i] * sent.sends",
            "carried = wiring.present[i]",
            f"{FORWARD}::test_no_bias_of_an_adapter_leaks_over_a_silent_link",
        ),
        Mutant(
            "weight * _masked(carried, value) for",
            "weight * value for",
            f"{FORWARD}::test_no_bias_of_an_adapter_leaks_over_a_silent_link",
        ),
        Mutant(
            "sends = alive * jnp.stack(carries).max()",
            "sends = alive",
            f"{FORWARD}::test_what_fails_or_hears_nothing_sends_exact_zeros",
        ),
        Mutant(
            "sends = alive * jnp.stack(carries).max()",
            "sends = jnp.stack(carries).max()",
            f"{FORWARD}::test_what_fails_or_hears_nothing_sends_exact_zeros",
        ),
        Mutant(
            "sent[edge.source].sends * alive.get(edge.name, always)",
            "sent[edge.source].sends",
            f"{FORWARD}::test_no_bias_of_an_adapter_leaks_over_a_silent_link",
        ),
        Mutant(
            "Sent(_masked(sends, value), sends)",
            "Sent(value, sends)",
            f"{FORWARD}::test_what_fails_or_hears_nothing_sends_exact_zeros",
        ),
        Mutant(
            "value if source not in self.graph.fallible else _masked(alive, value)",
            "value",
            f"{FORWARD}::test_what_fails_or_hears_nothing_sends_exact_zeros",
        ),
        Mutant(
            "return factor * jnp.where(factor > 0, value, 0.0)",
            "return factor * value",
            f"{FORWARD}::test_a_failed_node_that_overflowed_sends_zero",
        ),
        # Statistics by arrival.
        Mutant("after[STATISTICS], sends)", "after[STATISTICS], jnp.ones(()))", f"{MOBILENET}::TestAFailedNode"),
        Mutant(
            "jnp.where(carried > 0, 2**k, 0)",
            "jnp.where(carried > 0, 1, 0)",
            f"{FORWARD}::test_statistics_are_kept_and_used_apart_for_each_arrival",
        ),
        Mutant(
            "known.row(arrival)",
            "known.row(known.seen.argmax())",
            f"{FORWARD}::test_statistics_are_kept_and_used_apart_for_each_arrival",
        ),
        Mutant(
            "jnp.where(self.seen[arrival] > 0, arrival,",
            "jnp.where(self.seen[arrival] >= 0, arrival,",
            f"{FORWARD}::test_statistics_are_kept_and_used_apart_for_each_arrival",
        ),
        Mutant(
            "lambda leaf: leaf[arrival], known.values",
            "lambda leaf: leaf[0], known.values",
            f"{FORWARD}::test_statistics_are_kept_and_used_apart_for_each_arrival",
        ),
        Mutant(
            "self.seen[arrival] + 1)",
            "self.seen[arrival])",
            f"{FORWARD}::test_statistics_are_kept_and_used_apart_for_each_arrival",
        ),
        # Weights that are learned; dropout.
        Mutant(
            "wiring.learned * (added",
            "1.0 * (added",
            f"{FORWARD}::test_learned_weights_have_the_gradient_of_weights_and_fixed_ones_none",
        ),
        Mutant(
            "(added if self.learns_weights",
            "(added if not self.learns_weights",
            f"{FORWARD}::test_learned_weights_have_the_gradient_of_weights_and_fixed_ones_none",
        ),
        Mutant(
            "fold_in(training_key, self.graph.order.index(node))",
            "fold_in(training_key, 0)",
            f"{FORWARD}::test_every_node_draws_its_own_noise_in_training",
        ),
    ],
    "network/stages.py": [
        Mutant(
            "(1 - self.momentum) / (1 - self.momentum**steps.value)",
            "1 - self.momentum",
            f"{MOBILENET}::test_running_statistics_are_averages_that_fade_and_serve_at_inference",
        ),
        Mutant("(jnp.arange(units) < size)", "(jnp.arange(units) <= size)", "tests/network/test_skip_layers.py"),
    ],
    "failures/model.py": [
        # Failout.
        Mutant("draws >= failout_rate[None, :]", "draws < failout_rate[None, :]"),
        Mutant("draws >= failout_rate[None, :]", "draws > failout_rate[None, :]"),
        Mutant("draws >= failout_rate[None, :]", "draws >= failout_rate[None, ::-1]"),
        Mutant(
            "uniform(key, (steps, failout_rate.shape[0]))",
            "uniform(key, (steps, 1))",
            f"{MODELS}::test_failout_fails_a_group_as_one",
        ),
        Mutant(
            "uniform(key, (steps, failout_rate.shape[0]))",
            "uniform(key, (1, failout_rate.shape[0]))",
            f"{TRAINING}::test_an_epoch_is_a_plain_loop_of_steps_each_with_its_own_mask_and_activity",
        ),
        Mutant(
            "functools.reduce(jnp.logical_and,",
            "functools.reduce(jnp.logical_or,",
            f"{MODELS}::test_failout_fails_a_group_as_one",
        ),
        Mutant("return any(first in skip.bypassed for skip in skips)", "return True", CELLS),
        Mutant(
            "first in skip.bypassed for",
            "first in skip.bypassed[:1] for",
            "tests/failures/test_model.py::test_training_learns_from_every_node_that_a_skip_bypasses",
        ),
        Mutant(
            "return has_path(self.graph, failing, skips)",
            "return has_path(self.graph, failing)",
            f"{MODELS}::test_training_never_fails_what_leaves_no_path",
        ),
        # Probabilities.
        Mutant("np.where(survival > 0, 1 - failure, failure)", "np.where(survival > 0, failure, 1 - failure)"),
        Mutant(
            "np.where(failing, of_groups, 1 - of_groups)",
            "np.where(failing, 1 - of_groups, of_groups)",
            f"{MODELS}::test_average_accuracy_equals_brute_force",
        ),
        Mutant("1 - failure[cause] for cause", "failure[cause] for cause", f"{MODELS}::test_marginals_count_groups"),
        Mutant("1 - (1 - failure_probability) * (1 - failout_rate)", "failure_probability + failout_rate"),
    ],
    "failures/combinations.py": [
        Mutant("total[-1] = 1 - information", "total[-1] = information"),
        Mutant("1 - (1 - unheard) * (1 - failure", "1 - (1 - unheard) * (failure"),
        Mutant(
            "else math.prod(links)",
            "else max(links, default=1.0)",
            f"{MODELS}::test_information_probability_is_that_of_all_masks",
        ),
        Mutant("last_heard[sender] > number", "last_heard[sender] >= number"),
        Mutant("reachable - tolerance) + 1", "reachable - tolerance)"),
        Mutant(
            "itertools.combinations(nodes, size)",
            "itertools.combinations(nodes[::-1], size)",
            "tests/failures/test_model.py",
        ),
        Mutant("max(0.0, 1 - float(self.probabilities(failure_probability).sum()))", "0.0"),
        Mutant("if asked.tobytes() not in self._probabilities:", "if len(self._probabilities) < 1:", RESULTS),
    ],
    "failures/averages.py": [
        Mutant("np.where(probability > 0,", "np.where(probability >= 0,", EVALUATION),
        Mutant("low + combinations.left_out(failure_probability)", "low", COMBINATIONS),
    ],
    "cells.py": [
        # Weights, drawn and learned.
        Mutant("low + (high - low) * jax", "low + high * jax"),
        Mutant("weight * scale, activity", "weight, activity"),
        Mutant("jnp.asarray(cell.weight_learned) * scale", "jnp.asarray(cell.weight_learned)"),
        Mutant(
            "_scalar(isinstance(weight, Learned))",
            "_scalar(False)",
            f"{RUNS}::test_learned_weights_move_are_told_and_are_those_that_count",
        ),
        Mutant("weight_low=low * present", "weight_low=low"),
        Mutant("sum(reliability[other.source]", "sum(reliability[other.target]"),
        # What is drawn when, and who may fail.
        Mutant("(draws < cell.training_activity)", "(draws > cell.training_activity)"),
        Mutant(
            '("inference_activity", "inference_scale", "recalibrated")',
            '("inference_activity", "inference_scale", "recalibrated", "failout_rate")',
        ),
        Mutant("rate if failures.teaches(cause, present_skips) else 0.0", "rate"),
        Mutant("training_activity if present_skips else 0.0", "training_activity"),
        Mutant(" and not any(effective.values())", ""),
        Mutant(
            "failures.survival_probability(effective, edge.source,", "failures.survival_probability(rates, edge.source,"
        ),
        Mutant(
            "survival_probability(effective, edge.source, edge.name)",
            "survival_probability(effective, edge.source)",
            f"{MODELS}::test_survival_scaling_counts_groups_and_links",
        ),
        # What the methods are.
        Mutant('"resilinet": {"training_activity": 0.5, "inf', '"resilinet": {"training_activity": 0.8, "inf'),
    ],
    "engine/training.py": [
        Mutant(
            "cell.learning_rate_decay**state.epoch",
            "cell.learning_rate_decay ** (state.epoch + 1)",
            f"{TRAINING}::test_the_learning_rate_decays_with_epochs_not_with_chunks",
        ),
        Mutant(
            "cell.learning_rate_decay**state.epoch",
            "cell.learning_rate_decay**state.chunks",
            f"{TRAINING}::test_the_learning_rate_decays_with_epochs_not_with_chunks",
        ),
        # The best epoch.
        Mutant(
            "better = score > state.best_score",
            "better = score >= state.best_score",
            f"{TRAINING}::test_best_epoch_is_kept",
        ),
        Mutant("jnp.where(better, new, old)", "new", f"{TRAINING}::test_best_epoch_is_kept"),
        Mutant(
            "jax.random.uniform(jax.random.fold_in(key, batch), weight.shape)",
            "jax.random.uniform(key, weight.shape)",
            f"{TRAINING}::test_skips_are_as_active_in_validation_as_in_training",
        ),
        Mutant(
            "jax.random.fold_in(keys.validation, number)",
            "jax.random.fold_in(keys.chunks, number)",
            f"{TRAINING}::test_skips_are_as_active_in_validation_as_in_training",
        ),
        # Several splits.
        Mutant("order = order[jnp.argsort(order == PADDING, stable=True)]", "pass", SPLITS),
        Mutant("inputs[1][-1] != PADDING, step,", "inputs[1][-1] != 3, step,", SPLITS),
        Mutant("losses.sum() / (order[:, -1] != PADDING).sum()", "losses.mean()", SPLITS),
        # Keys: by run, epoch and batch.
        Mutant(
            "jax.random.fold_in(jax.random.key(seed), run)",
            "jax.random.key(seed + run)",
            f"{RUNS}::test_every_run_and_seed_has_keys_of_its_own",
        ),
        Mutant(
            "step_key = chunk_keys(keys.chunks, state.chunks)",
            "step_key = chunk_keys(keys.chunks, 0)",
            f"{TRAINING}::test_every_chunk_has_failures_of_its_own",
        ),
        Mutant(
            "key, *_ = chunk_keys(chunks_key, number)",
            "key, *_ = chunk_keys(chunks_key, 0)",
            f"{TRAINING}::test_every_epoch_has_an_order_of_its_own_and_uses_each_example_once",
        ),
        Mutant(
            "jnp.asarray(cell.failout_rate), steps)",
            "jnp.asarray(cell.failout_rate), 1).repeat(steps, 0)",
            f"{TRAINING}::test_an_epoch_is_a_plain_loop_of_steps_each_with_its_own_mask_and_activity",
        ),
        Mutant(
            "jax.random.uniform(activity_key,",
            "jax.random.uniform(failout_key,",
            f"{TRAINING}::test_an_epoch_is_a_plain_loop_of_steps_each_with_its_own_mask_and_activity",
        ),
        Mutant(
            "fold_in(augment_key, number)",
            "fold_in(augment_key, 0)",
            f"{TRAINING}::test_every_batch_has_noise_of_its_own",
        ),
        Mutant(
            "fold_in(step_key, number)", "fold_in(step_key, 0)", f"{TRAINING}::test_every_batch_has_noise_of_its_own"
        ),
        Mutant(
            "draw_weight(cell, keys.weight)\n    chunk, members",
            "draw_weight(cell, keys.init)\n    chunk, members",
            f"{RUNS}::test_drawn_weights_are_the_same_in_training_and_evaluation",
        ),
        Mutant(
            "training_wiring(cell, weight, draw)",
            "inference_wiring(cell, weight)",
            f"{TRAINING}::test_an_epoch_is_a_plain_loop_of_steps_each_with_its_own_mask_and_activity",
        ),
    ],
    "engine/shuffling.py": [
        Mutant("_EXPONENT = 3", "_EXPONENT = 1"),
    ],
    "engine/evaluation.py": [
        Mutant(
            "np.where(informed, of_answers, uninformed)",
            "of_answers",
            f"{EVALUATION}::test_accuracy_is_chance_without_information_and_missing_where_it_diverged",
        ),
        Mutant(
            "np.where(no_path, uninformed, np.take(known, plan.cloud, axis))",
            "np.take(known, plan.cloud, axis)",
            f"{EVALUATION}::test_accuracy_is_chance_without_information_and_missing_where_it_diverged",
        ),
        Mutant(
            "constant_values=PADDING",
            "constant_values=0",
            f"{EVALUATION}::test_accuracy_under_masks_matches_a_numpy_loop",
        ),
        Mutant(
            "before.finite & jnp",
            "jnp",
            f"{EVALUATION}::test_a_logit_that_is_no_number_in_any_batch_makes_the_accuracy_missing",
        ),
        Mutant(
            "correct.at[place]",
            "jnp.zeros_like(correct).at[place]",
            f"{EVALUATION}::test_accuracy_under_masks_matches_a_numpy_loop",
        ),
        Mutant(
            "jnp.where(number == NOTHING, 0, each.sends[number])",
            "each.sends[number]",
            f"{EVALUATION}::test_accuracy_under_masks_matches_a_numpy_loop",
        ),
        Mutant("predicted.at[place].add(counts[None])", "predicted.at[place].add(1)", METRICS),
        Mutant("labels.at[y].add(counts)", "labels.at[y].add(1)", METRICS),
        Mutant("there[None], said.value - y[None], 0.0", "there[None], said.value, 0.0", NUMBERS),
        Mutant("jnp.where(there, y, 0.0)", "jnp.where(there, y - y.mean(0), 0.0)", NUMBERS),
        Mutant("np.stack([unit**2, unit] * 2, -1)", "np.stack([unit, unit] * 2, -1)", NUMBERS),
    ],
    "engine/plan.py": [
        # Two combinations share an application only if everything that arrives is the same.
        Mutant(
            "alive.get(edge.name, True), state[edge.source]",
            "True, state[edge.source]",
            f"{MODELS}::test_plan_equals_one_pass_per_combination",
        ),
        Mutant("(received != NOTHING).any(1)", "(received != NOTHING).all(1)"),
        Mutant("any(1) & alive.get(node, True)", "any(1)"),
        Mutant(
            "np.unique(received[computes], axis=0, return_inverse=True)",
            "(received[computes], np.arange(computes.sum()))",
        ),
        Mutant("= numbers.reshape(-1)", "= 0"),
    ],
    "engine/recalibration.py": [
        Mutant("np.argmax(plan.cloud == answer)", "np.argmin(plan.cloud == answer)"),
        Mutant(
            "given = Variables(params, known), x, alive,", "given = Variables(params, known), x, jnp.ones_like(alive),"
        ),
        Mutant("batch[1][-1] != PADDING", "batch[1][-1] >= PADDING"),
        Mutant("Variables(params, known), batch.x, alive,", "Variables(params, known), batch.x, jnp.ones_like(alive),"),
    ],
    "engine/run_cells.py": [
        # Runs of the same number are paired over the cells, wherever they stand in a pass.
        Mutant(
            "(functools.partial(run_keys, seed))(runs)",
            "(functools.partial(run_keys, seed))(np.arange(len(runs)))",
            f"{RUNS}::test_a_run_alone_equals_the_same_run_among_others",
        ),
        Mutant("index(run // MOST_RUNS) for run in runs]", "index(splits[0]) for run in runs]", SPLITS),
    ],
    "engine/program.py": [
        Mutant(
            "recalibrate(self.network, state.best.params,", "recalibrate(self.network, state.variables.params,", AGAIN
        ),
        Mutant(
            "order, own = orders[models.order],",
            "order, own = orders[0],",
            f"{RUNS}::test_a_run_alone_equals_the_same_run_among_others",
        ),
        Mutant(
            "self.network, state.best, wiring",
            "self.network, state.variables, wiring",
            f"{RUNS}::test_the_epoch_is_selected_on_validation_and_reported_on_test",
        ),
        Mutant(
            "MOST_RUNS * split + self.first_run + run for split in splits",
            "self.first_run + run for split in splits",
            SPLITS,
        ),
        Mutant(
            "rows[..., first : first + size]",
            "rows[..., :size]",
            f"{RUNS}::test_what_is_held_out_may_come_in_chunks_and_their_parts",
        ),
    ],
    "engine/passes.py": [
        Mutant("train(0, on.replicated, augmented=False)", "train(0, on.replicated)", AGAIN),
        Mutant("np.int32(done - 1), on.replicated)", "np.int32(0), on.replicated)", AGAIN),
        Mutant("once.ndim))), again, once)", "once.ndim))), once, again)", AGAIN),
        Mutant('program.feed.sizes["test"][own]', 'program.feed.sizes["test"][0 * own]', SPLITS),
        Mutant("np.full_like(score, epoch)", "score", f"{RUNS}::test_the_last_epoch_counts_on_request"),
        Mutant(
            "score @ (probability / probability.sum())",
            "score[:, 0]",
            f"{RUNS}::test_the_average_under_failures_selects_on_request",
        ),
        Mutant(
            'held_out("validation", on.replicated)',
            'held_out("test", on.replicated)',
            f"{RUNS}::test_the_epoch_is_selected_on_validation_and_reported_on_test",
        ),
    ],
    "deploy/exporting.py": [
        Mutant("weight[[i for i, _ in edges]]", "weight[: len(edges)]"),
        Mutant("list(carries), list(arrays[WEIGHT])", "list(carries[::-1]), list(arrays[WEIGHT])"),
        Mutant('"default": lowered_for("gpu")', '"default": lowered_for("cpu")', equivalent="both say the same"),
        Mutant("if not apart <= tolerance:", "if apart > 1:"),
    ],
    "deploy/gates.py": [
        Mutant("if not link.up or request < link.since:", "if not link.up:"),
        Mutant("link.opened = 0 if self.floor is None else self.floor + 1", "link.opened = (self.floor or 0) + 2"),
        Mutant("return False if in_order and link.last > request else None", "return None"),
        Mutant("watermark >= self.floor - SMALL_LAG", "watermark >= 0"),
        Mutant("self._rise(edge, self._known + 1)", "self._rise(edge, watermark + 1)"),
        Mutant("or request in self._wanted:", "or False:"),
        Mutant("first, sent_from = since or self.highest + 1,", "first, sent_from = since,"),
        Mutant("self._open, self._since = True, min(first, sent_from)", "self._open, self._since = True, sent_from"),
        Mutant("if first <= request < sent_from", "if first <= request"),
        Mutant("return [Open(edge, floor + 1) for edge, _ in early]", "return []"),
        Mutant("if has_value and not link.up:", "if not link.up:"),
        Mutant("if stands_for in self.links and self.links[stands_for].up:", "if False:"),
        Mutant("self.floor = self._known = floor", "self.floor = self._known = 0"),
    ],
    "deploy/node.py": [
        Mutant("if shown == [identity(expected).encode()]:", "if shown:", CERTIFICATES),
        Mutant('await self._only_client(context, "counters")', "pass", CERTIFICATES),
        Mutant("require_client_auth=True", "require_client_auth=False", CERTIFICATES),
        Mutant("witness = witness | value.witness | own", "witness = witness | own"),
        Mutant("carries[slot], brought[slot] = 1, value.array", "carries[slot], brought[slot] = 0, value.array"),
        Mutant("if any(other.rows != rows for", "if any(False for"),
    ],
    "deploy/dialling.py": [
        Mutant("identity(target))])", "identity(target))][:-1])", CERTIFICATES),
    ],
    "deploy/namespaces.py": [
        Mutant("in (ends, ends[::-1])", "in (ends, ends)", TRIAL),
        Mutant(
            '[f"from {self._pairs[name][1]}", f"to {self._pairs[name][1]}"]', '[f"to {self._pairs[name][1]}"]', TRIAL
        ),
    ],
    "deploy/measured.py": [
        Mutant("end >= asked - BOUND", "end >= asked", TRIAL),
        Mutant("if since <= answered", "if since <= asked", TRIAL),
        Mutant("if each.bytes != each.predicted.bytes:", "if False:", TRIAL),
    ],
    "deploy/model.py": [
        Mutant("float(name not in failed)", "float(name in failed)"),
        Mutant("np.asarray(output.informed) > 0", "np.asarray(output.informed) >= 0"),
        Mutant("jnp.full_like(present, manifest.activity)", "jnp.ones_like(present)"),
    ],
    "results/results.py": [
        Mutant("kept.std(ddof=1)", "kept.std(ddof=0)"),
        Mutant("return (low + high) / 2", "return low"),
        Mutant("return values[np.isfinite(values)]", "return np.nan_to_num(values)"),
        Mutant("with_failout_at_inference(\n", "np.maximum(\n"),
    ],
    "results/units.py": [
        Mutant("len(set(self.split)) > 1", "False"),
        Mutant("if self.several and self.kind != PERSON else", "if self.several else"),
        Mutant("kept & (labels == each)", "labels == each"),
    ],
    "results/estimate.py": [
        Mutant("(1 / self.units + self.overlap)", "(1 / self.units)"),
        Mutant("(1 / self.units + self.overlap)", "(1 / self.runs + self.overlap)"),
        Mutant("self.margin((1 - CONFIDENCE) / 2)", "self.margin(1 - CONFIDENCE)"),
        Mutant("* self.error + self.left_out", "* self.error"),
        Mutant("abs(self.mean) - self.left_out\n        if", "abs(self.mean)\n        if"),
        Mutant("2 * float(stdtr(", "float(stdtr("),
        Mutant("means.std(ddof=1)", "means.std(ddof=0)"),
        Mutant("(found >= POWER) | (equal >= POWER)", "found >= POWER"),
        Mutant("self.noise > self.deviation**2 / 2", "self.noise < self.deviation**2 / 2"),
    ],
    "results/comparisons.py": [
        Mutant("self.values[0] - self.values[1]", "np.sort(self.values[0]) - np.sort(self.values[1])"),
        Mutant("self.units, self.left_out)", "self.units)"),
        Mutant("(tested - np.arange(len(p)))", "tested"),
        Mutant("(tested - np.arange(len(p)))", "1"),
        Mutant("np.maximum.accumulate(", "np.asarray("),
        Mutant("DOUBT / max(1, self.tested)", "DOUBT"),
        Mutant("math.ceil(1000 * largest)", "math.floor(1000 * largest)"),
        Mutant(
            "cell_of(column, setting), cell_of(other, setting)", "cell_of(other, setting), cell_of(column, setting)"
        ),
    ],
    "results/metrics.py": [
        Mutant("positive + missed > 0, counts", "positive + missed >= 0, counts"),
        Mutant("total > 0, counts", "positive + missed > 0, counts"),
        Mutant("_share(2 * positive, total)", "_share(positive, total)"),
        Mutant("np.where(np.isnan(counts).any((-1, -2)), np.nan, mean)", "mean"),
        Mutant("errors[..., 0], errors[..., 2]", "errors[..., 1], errors[..., 3]", NUMBERS),
    ],
    "report/class_recall.py": [
        Mutant("if lost[c] > 0", ""),
        Mutant("np.argsort(-worst,", "np.argsort(worst,"),
        Mutant("recalls[results.failing_sets.index(())][None] - recalls[at]", "1 - recalls[at]"),
    ],
    "results/best.py": [
        Mutant("DOUBT / questions / max(", "DOUBT / max("),
        Mutant("units, left_out)\n        if abs", "units)\n        if abs"),
        Mutant("second if difference.mean > 0 else first", "first if difference.mean > 0 else second"),
    ],
    "results/shapley.py": [
        Mutant("_share(len(others), len(parts))", "2.0 ** (1 - len(parts))"),
        Mutant("(worth[others | {part}] - without)", "(worth[others | {part}] - worth[frozenset()])"),
    ],
    "results/messages.py": [
        Mutant("bool(cell.inference_activity)", "bool(cell.training_activity)"),
        Mutant("np.asarray(cell.present), bool", "None, bool"),
        Mutant("float(probability[:-1].sum())", "float(probability.sum())"),
        Mutant("low + unknown * np.asarray(cell.present, float)", "low + unknown"),
        Mutant("cost[:, None] <= cost[None]", "cost[:, None] < cost[None]"),
    ],
    "results/csv_files.py": [
        Mutant("in (score[order], loss", "in (score, loss"),
        Mutant("if results.cells[name].present[i]", "if True"),
    ],
    "results/paper.py": [
        Mutant("chance if node in failing else 1 - chance", "1 - chance if node in failing else chance"),
        Mutant('("n1",): (92.48, 64.42, 7.95)', '("n1",): (92.48, 46.42, 7.95)'),
        Mutant("(78.94, 88.30, 85.73, 70.33, 52.60)", "(78.94, 88.03, 85.73, 70.33, 52.60)"),
        Mutant("DATASETS.get(scenario) == dataset", "scenario in DATASETS"),
    ],
    "datasets/splitting.py": [
        Mutant("standardisation_of(take_rows(dataset.x, rows[0]))", "standardisation_of(dataset.x)", DATA),
        Mutant("standardise.centre + dataset.offset", "standardise.centre - dataset.offset", TABLES),
        Mutant("drawn.validation[: _validating(train_examples)], drawn.test", "drawn.train[:9], drawn.test", DATA),
        Mutant("standardisation_of(x[own]) for", "standardisation_of(x) for", PARTS),
        Mutant("constant_values=PADDING", "constant_values=0", PARTS),
        Mutant('longest["train"] += most.least < longest["train"]', "pass", PARTS),
        Mutant("shared.centre + shared.scale * fitted[0].centre", "shared.centre", PARTS),
    ],
    "datasets/parts.py": [
        Mutant(
            "_far_from(dataset.places, _far_from(dataset.places, train, test), validation)",
            "_far_from(dataset.places, train, test)",
            WINDOWS,
        ),
        Mutant("> places.reach]", ">= places.reach]", WINDOWS),
        Mutant("for back in (0, 1)", "for back in (0, 0)", WINDOWS),
        Mutant(
            "own[rng.permutation(np.concatenate([train, also]))], own[validation]",
            "rng.permutation(np.concatenate([train, also])), validation",
            WINDOWS,
        ),
        Mutant("[subjects[after[number]]], [subjects[number]]", "[subjects[number]], [subjects[after[number]]]", PARTS),
        Mutant("not in (number, after[number])", "not in (number,)", PARTS),
        Mutant("near & ~held_out", "near & held_out", PARTS),
        Mutant("[seed, number] if number else seed", "[seed, number, splits]", PARTS),
        Mutant("int(rows[len(rows) - cut :].sum())", "int(rows[:cut].sum())", PARTS),
        Mutant("if not near < 0.5 * far:", "if not near < 2 * far:", PARTS),
        Mutant(
            "np.split(rng.permutation(len(dataset.y)),", "np.split(rng.integers(len(dataset.y), size=len(dataset.y)),"
        ),
    ],
    "datasets/tables/reading.py": [
        Mutant("np.where(scan.exact, 0.0, scan.total / rows)", "np.zeros(len(scan.exact))", TABLES),
        Mutant("scan.total / rows", "0 * scan.total", TABLES),
        Mutant("+ (broken << 32) if self._breaks", "+ (broken << 32) if False", TABLES),
        Mutant("kept = piece.x[piece.whole]", "kept = piece.x", TABLES),
        Mutant("next(column, None) is not None", "False", TABLES),
    ],
    "datasets/tables/dialect.py": [
        Mutant('decimal = "," if separator != ","', 'decimal = "," if separator == ","', TABLES),
        Mutant("((0, 3), (1, 5))", "()", TABLES),
        Mutant("((0, 3), (1, 5))", "((0, 3), (1, 3))", TABLES),
        Mutant("2 if decimals else fewest", "fewest", TABLES),
        Mutant("        if field in below:\n            return False\n", "", TABLES),
        Mutant("commas = not decimals or (", "commas = not decimals or False and (", TABLES),
        Mutant('re.search(r",0\\d", part)', 're.search("a", part)', TABLES),
        Mutant("if len(aside) == width", "if False", TABLES),
    ],
    "datasets/tables/files.py": [
        Mutant("part_of(name)) is not None", "part_of('')) is not None", TABLES),
        Mutant("inside = common_folder(tables)", "inside = path", TABLES),
        Mutant("for each in there if each not in used", "for each in tables if each not in used", TABLES),
    ],
    "datasets/lying.py": [
        Mutant("if own in seen or (", "if (", TABLES),
        Mutant("(path.is_symlink() and path.resolve().is_relative_to(whole))", "False", TABLES),
        Mutant("followlinks=True", "followlinks=False", TABLES),
    ],
    "datasets/tables/columns.py": [
        Mutant("if not is_part(name)]", "]", TABLES),
    ],
    "datasets/tables/pieces.py": [
        Mutant("skip_blank_lines=False", "skip_blank_lines=True", TABLES),
        Mutant("skiprows=dialect.begin", "skiprows=int(dialect.begin > 0)", TABLES),
        Mutant("> 1:", "> 9:", TABLES),
        Mutant("if pa.types.is_integer(column.type)", "if False", TABLES),
        Mutant("if name in class_names", "if False", TABLES),
    ],
    "datasets/windows.py": [
        Mutant("np.arange(begin, end - rows + 1, hop)", "np.arange(begin, end, hop)", WINDOWS),
        Mutant("number * (reach + 1)", "0 * number", WINDOWS),
        Mutant("labels[:, -1]", "labels[:, 0]", WINDOWS),
        Mutant("reach = max(rows, hop)", "reach = hop", WINDOWS),
        Mutant(".swapaxes(1, 2)", ".reshape(len(y), rows, -1)", WINDOWS),
        Mutant('kind="stable"', 'kind="heapsort"', WINDOWS),
    ],
    "datasets/labels.py": [
        Mutant("(float(each), each)", "(each, each)"),
        Mutant("place[each] for each in called", "place[each] for each in order"),
    ],
    "datasets/own_images.py": [
        Mutant("records[:, 1].tolist()", "records[:, 0].tolist()", IMAGES),
        Mutant(".transpose(0, 2, 3, 1))", ".transpose(0, 3, 2, 1))", IMAGES),
        Mutant("if (module, name) not in known:", "if False:", IMAGES),
        Mutant("x * (255.0 if high <= 1 else 1)", "x * 1", IMAGES),
    ],
    "datasets/inspection.py": [
        Mutant("np.isin(marks[asked], marks[there])", "np.isin(marks[there], marks[asked])", INSPECTION),
        Mutant("(np.array(right) - commonest)", "np.array(right)", INSPECTION),
        Mutant("place[half:]", "place[:half]", INSPECTION),
    ],
    "datasets/splits.py": [
        Mutant(
            "share, total = train / train.sum(-1, keepdims=True)",
            "share, total = test / test.sum(-1, keepdims=True)",
            f"{EVALUATION}::test_chance_accuracy_is_the_expectation_of_guessing",
        ),
        Mutant("(total - test) * share", "(total - test) * (1 - share)", METRICS),
        Mutant("x - self.scaling.centre[None]", "x", SPLITS),
        Mutant("+ PADDING * ~there", "", PARTS),
        Mutant("(y - self.targets.centre[None])", "y", NUMBERS),
        Mutant("jnp.where(there[:, None], y, jnp.nan)", "y", NUMBERS),
    ],
    "datasets/feed.py": [
        Mutant("fill = np.nan if", "fill = 0.0 if", NUMBERS),
    ],
    "sweeps/failure_combinations.py": [
        Mutant(
            "zip(results.failing_sets, results.combination",
            "zip(results.failing_sets[::-1], results.combination",
            f"{SWEEPS}::test_failure_combinations_prints_table_2",
        ),
    ],
    "sweeps/average_accuracy.py": [
        Mutant(
            '"DFG": "dfg", "Vanilla": "vanilla"',
            '"DFG": "vanilla", "Vanilla": "dfg"',
            f"{SWEEPS}::test_average_accuracy_prints_fig_4",
        )
    ],
    "sweeps/hyperconnection_weight.py": [
        Mutant(
            "reliability[edge.source] for edge",
            "reliability[edge.target] for edge",
            f"{SWEEPS}::test_weight_heuristics_know_their_failure_setting",
        ),
        Mutant(
            "np.std(means, ddof=1)",
            "np.std(means, ddof=0)",
            f"{SWEEPS}::test_weight_deviation_is_among_the_four_schemes_of_fig_5",
        ),
    ],
    "sweeps/failout_rate.py": [
        Mutant(
            'build("resilinet", failout_rate=probability)',
            'build("resilinet", failout_rate=max(probability.values()))',
            f"{SWEEPS}::test_failout_rate_trains_failure_at_each_nodes_own_probability",
        ),
        Mutant(
            "average_with_failout(cell, setting)) for cell in AT",
            "average(cell, setting)) for cell in AT",
            f"{SWEEPS}::test_failout_rate_prints_table_3",
        ),
    ],
    "sweeps/failure_model.py": [
        Mutant('"Independent": alone,', '"Independent": probability,'),
        Mutant("sum(alone.values()) / len(alone)", "max(alone.values())"),
    ],
    "sweeps/skip_configuration.py": [
        Mutant(
            "reversed(graph.skips)]", "graph.skips]", f"{SWEEPS}::test_skip_configurations_come_in_the_order_of_fig_6"
        ),
        Mutant(
            "cell_name(everything), setting) - results.average(cell_name(none)",
            "cell_name(none), setting) - results.average(cell_name(everything)",
            f"{SWEEPS}::test_skips_are_ranked_by_what_they_add_and_sum_to_all_of_them",
        ),
    ],
    "sweeps/survival_scaling.py": [
        Mutant('reading == "scaled")', 'reading != "scaled")', f"{SWEEPS}::test_survival_scaling_shares_its_training")
    ],
    "sweeps/skip_activity.py": [
        Mutant('{"select": 0, "add": 1}', '{"select": 1, "add": 0}', f"{SWEEPS}::test_bandwidth_tells_health_by_hand"),
        Mutant(
            "training_activity=training, inference_activity=activity",
            "training_activity=activity, inference_activity=activity",
            f"{SWEEPS}::test_skip_activity_crosses_training_with_inference",
        ),
    ],
    "sweeps/statistics.py": [
        Mutant("not _same(results, method, first, second)", "True", "tests/sweeps/test_statistics.py"),
        Mutant("(RUNNING, SHARED))", "(RUNNING, RECALIBRATED))", "tests/sweeps/test_statistics.py"),
    ],
    "sweeps/tuned_methods.py": [
        Mutant("max(FACTORS, key=merit)", "min(FACTORS, key=merit)", "tests/sweeps/test_tuned_methods.py"),
        Mutant("return -int(np.isnan", "return int(np.isnan", "tests/sweeps/test_tuned_methods.py"),
        Mutant("np.fmax.reduce(", "np.fmin.reduce(", "tests/sweeps/test_tuned_methods.py"),
    ],
    "sweeps/skip_layer.py": [Mutant("skip_units=size)", "skip_units=max(SIZES))")],
    "sweeps/bandwidth.py": [
        Mutant("AT_INFERENCE.get(each.inference, 0)", "0", f"{SWEEPS}::test_bandwidth_tells_health_by_hand"),
        Mutant(
            "float((low + high) @ worth) / 2, float((high",
            "float(low @ worth), float((high",
            f"{SWEEPS}::test_bandwidth_tells_intervals_where_combinations_are_left_out",
        ),
        Mutant(
            "mean(results.average(name, setting)) for name in names",
            "-mean(results.average(name, setting)) for name in names",
            f"{SWEEPS}::test_bandwidth_marks_the_pareto_front",
        ),
    ],
}


def path_of(file: str) -> str:
    """Where a file of `MUTANTS` is in the checkout."""
    return file if file.startswith("sweeps/") else f"resilinet_jax/{file}"


def killers_of(file: str, mutant: Mutant) -> list[str]:
    """What should kill a mutant: the tests that it names, or those that mirror its file."""
    mirror = pathlib.PurePosixPath("tests", file)
    own = f"{mirror.parent}/test_{mirror.name}"
    return mutant.tests.split() or [own if (ROOT / own).exists() else str(mirror.parent)]


def copy_checkout(folder: pathlib.Path) -> None:
    """Copies what the tests need to a new folder, where `resilinet_jax.sweeps` is the copy's as well."""
    for name in ("resilinet_jax", "sweeps", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", folder)
    (folder / "resilinet_jax" / "sweeps").symlink_to("../sweeps")


def run_python(folder: pathlib.Path, *arguments: str) -> str:
    """What Python prints in a copy of the checkout, where tests keep what they compile in `programs`."""
    cache, programs = folder / "cache", folder / "programs"
    programs.mkdir(exist_ok=True)
    if not cache.exists():  # the tests remove it at their end, but not what a link in it leads to
        (cache / "resilinet_jax").mkdir(parents=True)
        (cache / "resilinet_jax" / "programs").symlink_to(programs)
    environment = {**os.environ, "PYTHONPATH": str(folder), "RESILINET_JAX_TEST_CACHE": str(cache)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def first_failure(folder: pathlib.Path, tests: Sequence[str], workers: int) -> str:
    """The first of these tests that fails in a copy of the checkout; empty if all pass."""
    pytest = ("-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-n", str(workers))
    printed = run_python(folder, *pytest, *tests)
    failed = [line.split()[1] for line in printed.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if not failed and " passed" not in printed:  # of a mutant: what it did to Python
        return f"a crash, after {printed[-200:]!r}"
    return failed[0] if failed else ""


def check_original(folder: pathlib.Path, tests: Sequence[str]) -> None:
    """Ends the campaign if the tests don't pass in a copy as it is, or if they would test anything else."""
    told = "import resilinet_jax as r, resilinet_jax.sweeps as s; print(r.__file__, s.__file__)"
    printed = run_python(folder, "-c", told)
    if any(not name.startswith(str(folder)) for name in printed.split()) or not printed:
        sys.exit(f"the copy in {folder} is not what is imported: {printed}")
    if failed := first_failure(folder, tests, workers=2):
        sys.exit(f"{failed} fails without any mutant")


def verdict(original: pathlib.Path, file: str, mutant: Mutant) -> tuple[bool, str]:
    """Whether a mutant ended as it should, and how; `original` is a copy in which the tests have run."""
    with tempfile.TemporaryDirectory() as name:
        copy = pathlib.Path(name, "copy")
        # What was compiled is found by the program itself, but what was traced by things that no mutant changes.
        shutil.copytree(original, copy, symlinks=True, ignore=shutil.ignore_patterns("traced-*", "cache"))
        path = copy / path_of(file)
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
        killer = first_failure(copy, killers_of(file, mutant), workers=0)
    if mutant.equivalent:
        return (
            not killer,
            f"said to be equivalent, but killed by {killer}" if killer else f"equivalent: {mutant.equivalent}",
        )
    return bool(killer), f"killed by {killer}" if killer else "SURVIVED"


def main() -> int:
    """Runs the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.mutants")
    parser.add_argument("--only", default="", help="text that a mutant's file, old or new text holds")
    only = parser.parse_args().only
    chosen = [
        (file, each) for file, some in MUTANTS.items() for each in some if only in f"{file} {each.old} {each.new}"
    ]
    if not chosen:
        parser.error(f"no mutant holds {only!r}")
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(2) as pool:
        original = pathlib.Path(name)
        copy_checkout(original)
        check_original(original, list(dict.fromkeys(test for each in chosen for test in killers_of(*each))))
        counts: collections.Counter[str] = collections.Counter()
        fine = True
        for (file, mutant), (good, how) in zip(chosen, pool.map(lambda each: verdict(original, *each), chosen)):
            print(f"{file}: {mutant.old!r} -> {mutant.new!r}: {how}", flush=True)
            counts[how.split(" by ")[0].split(":")[0]] += 1
            fine &= good
    print(f"{len(chosen)} mutants: " + ", ".join(f"{count} {how}" for how, count in counts.items()))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
