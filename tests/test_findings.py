"""The claims page: what a difference says of a claim, and the tables that are made of results."""

import dataclasses
import importlib.util
import pathlib
import re
import tarfile
import types
import zipfile

import numpy as np
import pandas as pd
import pytest

from benchmarks import findings
from benchmarks.claims import FINDINGS, Judged, Outcome, Statement, verdict
from resilinet_jax.report.tables import percent
from resilinet_jax.results.comparisons import Comparison, Family
from resilinet_jax.results.units import PERSON, Units
from tests.helpers.fakes import BUILD, fake, mobilenet_builder
from tests.helpers.hostile import command

ROOT = pathlib.Path(__file__).parent.parent
EIGHT = np.array([-1.0, 1, -1, 1, -1, 1, -1, 1]) / 1000  # what eight runs differ by, of which the mean is zero


def said(difference, above=0.0, beside=1):
    """What is said of a difference of eight runs (a fraction), one of so many of the same kind."""
    runs = Comparison("", ("a", "b"), "here", (0.5 + difference + EIGHT, np.full(8, 0.5)), Units())
    statement = Statement(runs, above)
    claim, *_ = Family([statement.shifted] * beside).claims
    return statement.outcome(claim), statement.entry(claim)


def test_a_difference_is_shown_refuted_or_open():
    """Deviation 1.069e-3 over 8 runs: a standard error of 0.0378 points, so t(0.975; 7) = 2.365 gives ± 0.089."""
    assert said(0.002) == (Outcome.SHOWN, "+0.2 ± 0.1 ✓")
    assert said(-0.002) == (Outcome.REFUTED, "-0.2 ± 0.1 ✗")
    # Not told from zero, but less than a point for sure.
    assert said(0.0005)[0] is Outcome.LEVEL
    assert said(np.nan) == (Outcome.OPEN, "n/a")


def test_a_difference_above_a_bound_is_about_the_bound():
    assert said(0.152, above=0.15) == (Outcome.SHOWN, "+15.2 ± 0.1 ✓")
    assert said(0.1505, above=0.15)[0] is Outcome.OPEN
    assert said(0.1, above=0.15) == (Outcome.REFUTED, "+10.0 ± 0.1 ✗")
    assert said(-0.05, above=-0.06)[0] is Outcome.SHOWN


def test_no_difference_that_matters_needs_a_whole_interval_within_a_point():
    assert said(0.009, above=None)[0] is Outcome.SHOWN
    assert said(-0.009, above=None)[0] is Outcome.SHOWN
    assert said(0.0098, above=None)[0] is Outcome.OPEN
    assert said(0.012, above=None)[0] is Outcome.REFUTED


def test_more_statements_need_clearer_differences():
    assert said(0.001)[0] is Outcome.SHOWN
    assert said(0.00115, beside=1)[0] is Outcome.SHOWN
    assert said(0.0115, above=None, beside=1)[0] is Outcome.REFUTED
    assert said(0.0115, above=None, beside=60)[0] is Outcome.OPEN


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ("✓✓", "holds"),
        ("✓✗", "mixed (1 ✓, 1 ✗)"),
        ("✓?✓", "holds in part (2 ✓, 1 ?)"),
        ("✗✗", "fails"),
        ("?✗", "fails in part (1 ✗, 1 ?)"),
        ("≈≈", "no difference"),
        ("≈?", "not settled (1 ≈, 1 ?)"),
        ("??", "not settled"),
    ],
)
def test_verdict_follows_from_the_statements(outcomes, told):
    assert verdict(map(Outcome, outcomes)) == told


@pytest.mark.parametrize("build", [BUILD, mobilenet_builder()], ids=["health", "cifar10"])
def test_every_finding_finds_its_cells(build):
    """By the sweeps' own names; a claim about three nodes says nothing of two."""
    for finding in FINDINGS:
        statements = finding.statements(fake(finding.sweep, build=build))
        assert statements or "n3" in finding.title
        assert len({each.comparison.where for each in statements}) == len(statements)


def test_findings_take_the_difference_that_they_name():
    """By hand, on accuracies that tell cells apart."""
    results = fake("failure_combinations")
    by_title = {each.title: each for each in FINDINGS}
    first, *_ = by_title["While nodes fail, ResiliNet is more accurate than deepFogGuard"].statements(results)
    assert first.comparison.where == "resilinet − dfg while n1 fails"
    np.testing.assert_array_equal(first.comparison.values[0], results.measured["resilinet"].score[:, 1])
    np.testing.assert_array_equal(first.comparison.values[1], results.measured["dfg"].score[:, 1])
    (lead,) = by_title["ResiliNet gains on deepFogGuard from normal to hazardous failures"].statements(
        fake("average_accuracy")
    )
    averages = fake("average_accuracy").average
    expected = [averages("resilinet", each) - averages("dfg", each) for each in ("hazardous", "normal")]
    np.testing.assert_allclose(lead.comparison.values, expected)
    results = fake("statistics")
    gap, *_ = by_title["A part of ResiliNet's lead on images is batch normalisation"].statements(results)
    assert gap.comparison.where == "lead by arrival − lead recalibrated while n1 fails"
    accuracy = {name: each.score[:, 1] for name, each in results.measured.items()}
    for value, kind in zip(gap.comparison.values, ("running", "recalibrated")):
        np.testing.assert_allclose(value, accuracy[f"resilinet_{kind}"] - accuracy[f"dfg_{kind}"])


def test_page_has_every_claim_and_a_verdict_for_each_data_set():
    data = findings.data_sets("a.npz", None, "digits.npz")
    assert list(data) == ["synthetic", "digits", "dsads", "dsads_paper", "sites", "images"]
    known = {("dsads", sweep): fake(sweep) for sweep in data["dsads"].sweeps}
    measured = known["dsads", "failout_rate"].measured
    for name, each in measured.items():
        measured[name] = each._replace(validation_score=np.tile([0.5, 0.6, 0.7], (len(each.score), 1)))
    text = findings.page(data, known)
    summary, *sections = text.split("\n\n### ")
    late = len(measured) * len(next(iter(measured.values())).score)
    assert f"epochs: `failout_rate` on DSADS by person ({late} of {late}).\n" in summary
    assert len(sections) == len(FINDINGS) == summary.count("](#")
    assert "| DSADS by person |" in summary
    results = known["dsads", "failure_combinations"]
    assert f"| `dfg` | {percent(results.under('dfg', ()), 1)} |" in summary
    assert "synthetic" not in summary
    for finding, section in zip(FINDINGS, sections):
        assert section.startswith(finding.title)
        assert ("**verdict**" in section) == (finding.sweep not in ("statistics", "failure_model"))
    assert "--split=leave_one_subject_out --runs=2" in findings.told_data(data, ["dsads"])


def test_page_and_readme_show_the_same_numbers_of_the_readmes_sweep():
    (row,) = re.findall(r"^No failure +n/a  (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert f"| here, as trained | {' | '.join(row.split('  '))} |" in (ROOT / "docs" / "findings.md").read_text()


def test_units_of_a_claim_are_people_where_there_are_people():
    results = fake("failure_combinations", runs=16)
    people = Units(tuple(str(number // 2) for number in range(16)), PERSON, 0.1)
    statements = FINDINGS[0].statements(dataclasses.replace(results, units=people))
    assert {each.shifted.difference.units for each in statements} == {8}
    alone = Judged(FINDINGS[0].statements(results)).entries()
    assert Judged(statements).entries() != alone


@pytest.fixture
def dsads():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("dsads", ROOT / "examples" / "dsads.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dsads_is_read_as_published(tmp_path, dsads):
    """Every fifth row of each segment; columns in mHealth's order, by their places in the published files."""
    units = ("torso", "right arm", "left arm", "right leg", "left leg")
    published = [f"{unit} {kind} {axis}" for unit in units for kind in ("acc", "gyr", "mag") for axis in "xyz"]
    wanted = ["torso acc x", "torso acc y", "torso acc z", "torso gyr x", "torso gyr y"]
    wanted += [name for unit in ("right leg", "right arm") for name in published if name.startswith(unit)]
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for activity, person, segment in ((2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 1, 1)):
            rows = np.arange(125)[:, None] + np.arange(45) / 100 + 1000 * segment
            text = "\n".join(",".join(map(str, row)) for row in rows)
            archive.writestr(f"data/a{activity:02}/p{person}/s{segment:02}.txt", text)
    x, y, subject = dsads.read(tmp_path / "archive.zip")
    assert y.tolist() == [0] * 75 + [1] * 25
    assert subject.tolist() == [1] * 50 + [2] * 25 + [1] * 25
    np.testing.assert_allclose(x[:2, 0], [1000, 1005])
    np.testing.assert_allclose(x[25], 2000 + np.array([published.index(name) for name in wanted]) / 100)


def test_an_interrupted_download_of_dsads_is_not_taken_for_the_archive(tmp_path, monkeypatch, dsads):
    archive = tmp_path / "archive.zip"

    def interrupted(url, path):
        path.write_bytes(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(dsads.urllib.request, "urlretrieve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dsads.fetch(archive)
    assert not archive.exists()
    archive.write_bytes(b"PK half")  # as earlier versions left it
    with pytest.raises(SystemExit, match=r"archive.zip is no whole zip archive; remove it and fetch it again"):
        dsads.read(archive)


@pytest.mark.usefixtures("unrendered")
def test_the_page_is_made_of_numbers_that_were_packed(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "few.npz", x=rng.normal(size=(80, 3)), y=rng.integers(0, 2, 80))
    flags = [f"--dataset={tmp_path / 'few.npz'}", "--runs=2", "--epochs=1", "--hidden_units=4", "--batch_size=16"]
    command("--sweep=failure_combinations", *flags, f"--results_dir={tmp_path / 'few'}", "--nocompilation_cache")
    data = {"few": findings.DataSet("few", "few rows", flags, ("failure_combinations",))}
    findings.pack(data, tmp_path, tmp_path / "numbers")
    (path,) = (tmp_path / "numbers").glob("*/*")
    packed = path.read_bytes()
    findings.pack(data, tmp_path, tmp_path / "numbers")
    assert path.read_bytes() == packed
    with tarfile.open(path) as archive:
        texts = [archive.extractfile(member).read().decode() for member in archive]
    assert len(texts) == 6
    assert not any(str(tmp_path) in text for text in texts)
    ((name, results),) = findings.finished(data, tmp_path / "numbers").items()
    assert name == ("few", "failure_combinations")
    written = pd.read_csv(tmp_path / "few/health/failure_combinations/accuracies.csv")
    for (cell, run), own in written.groupby(["cell", "run"], sort=False):
        np.testing.assert_array_equal(results.measured[cell].score[run], own.accuracy)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            findings.subprocess,
            "run",
            lambda command, **_: asked.append(command) or types.SimpleNamespace(returncode=0),
        )
        both = {"few": data["few"]._replace(sweeps=("failure_combinations", "bandwidth"))}
        findings.run(both, tmp_path, findings.finished(both, tmp_path / "numbers"))
    assert [command[2] for command in asked] == ["--sweep=bandwidth"]
