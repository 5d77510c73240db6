"""What the documentation shows works, and what it points to is there."""

import configparser
import importlib
import pathlib
import re
import shlex

import pytest

import resilinet_jax as rj
from resilinet_jax import sweeps
from resilinet_jax.command.flags import parse_flags
from resilinet_jax.command.ingredients import load_sweep
from resilinet_jax.datasets import synthetic
from resilinet_jax.scenarios import load_scenario, scenario_names

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"))]
PAGES += sorted(DOCS.rglob("*.md"))
# What takes long is made smaller here; what is shown has to hold exactly these texts.
SMALLER = {README: {"train_examples=20_000": "train_examples=1_000", "batch_size=256": "batch_size=64"}}
PROGRAM = re.compile(r"(?:\S*/)?(?:python3? (?:launch\.py|-m resilinet_jax)|resilinet-jax) (.+)")
EXAMPLE = re.compile(r"examples/\w+\.py")


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def for_each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page):
    """What stands outside of blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def commands(page):
    """The arguments of each command of ours, in a block or in a line."""
    in_lines = re.findall(r"`([^`\n]+)`", prose(page))
    in_blocks = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    found = [PROGRAM.fullmatch(text.strip()) for text in [*in_blocks, *in_lines]]
    return [shlex.split(match[1], comments=True) for match in found if match]


def run(page, folder):
    """Runs a page's Python in one namespace; files with a scenario or sweep are written to the folder as well."""
    namespace = {}
    for number, code in enumerate(blocks(page, "python")):
        for shown, smaller in SMALLER.get(page, {}).items():
            assert shown in code
            code = code.replace(shown, smaller)
        if re.search(r"^(SCENARIO|SWEEP) = ", code, re.MULTILINE):
            (folder / f"file_{number}.py").write_text(code, encoding="utf-8")
        exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)
    return namespace


def headings(page):
    """The headings as browsers find them: `#data-of-your-own`."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.fixture(autouse=True)
def fewer_rows(monkeypatch):
    """The embedded data set has a sixteenth of its rows: most are only tested on."""
    monkeypatch.setattr(synthetic, "ROWS", [rows // 16 for rows in synthetic.ROWS])


@for_each([page for page in PAGES if page != README and blocks(page, "python")])
def test_the_python_that_is_shown_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page, tmp_path)
    for file in tmp_path.glob("*.npz"):
        rj.load_dataset(file.name, None)


def test_the_readmes_python_trains_and_shows_that_skips_help(tmp_path, capsys):
    run(README, tmp_path)
    said = re.findall(r"^(\w+) +(\d+\.\d) ± \d+\.\d %$", capsys.readouterr().out, re.MULTILINE)
    assert [method for method, _ in said] == ["vanilla", "dfg", "resilinet"]
    accuracy = {method: float(mean) for method, mean in said}
    assert accuracy["resilinet"] > accuracy["vanilla"]


def test_the_scenario_that_is_shown_is_one(tmp_path):
    run(DOCS / "your_network.md", tmp_path)
    (file,) = tmp_path.glob("*.py")
    scenario = load_scenario(str(file))
    preset = scenario.presets["quick"]
    data = scenario.load(rj.Settings("all"), preset)
    graph = scenario.build_network(data.classes, **preset.network).graph
    assert (scenario.name, data.classes, graph.order) == ("blobs", 4, ("sensor", "edge", "cloud"))


def test_the_sweep_that_is_shown_is_one(tmp_path):
    run(DOCS / "your_sweep.md", tmp_path)
    (file,) = tmp_path.glob("*.py")
    sweep = load_sweep(str(file), sweeps)
    build = rj.CellBuilder(rj.build_chain(("i", "n1", "n2")), {"no failure": {}}, 0.05, 0.001)
    assert sweep.title == "Failout at low rates."
    assert [float(cell.failout_rate[0]) for cell in sweep.cells(build).values()] == pytest.approx([0, 0.1, 0.2])


def test_the_sweep_that_is_shown_is_short():
    first, *_ = blocks(DOCS / "your_sweep.md", "python")
    assert sum(bool(line.strip()) for line in first.splitlines()) <= 15


@for_each(PAGES)
def test_commands_have_only_flags_and_names_that_there_are(page):
    for arguments in commands(page):
        values, _ = parse_flags(["launch.py", *(each for each in arguments if each != "--help")])
        assert values["sweep"] in {None, "all", "list", *sweeps.sweep_names()} or values["sweep"].endswith(".py")
        assert values["scenario"] in scenario_names() or values["scenario"].endswith(".py")
        assert all((ROOT / example).is_file() for example in EXAMPLE.findall(" ".join(arguments)))


def test_cells_that_commands_export_are_those_of_their_sweeps():
    found = 0
    for arguments in (each for page in PAGES for each in commands(page)):
        _, mode = parse_flags(["launch.py", *(each for each in arguments if each != "--help")])
        if mode.export is not None:
            scenario, sweep = pathlib.Path(mode.export).parts[-2:]
            made = load_scenario(scenario)
            preset = made.presets["quick"]
            build = rj.CellBuilder(made.build_network(2, **preset.network).graph, made.failure_settings, 0.05, 0.001)
            assert mode.cell in sweeps.load_sweep(sweep).cells(build)
            found += 1
    assert found > 1


def test_commands_are_found_where_they_are_shown():
    assert ["--sweep", "failout_rate"] in commands(README)  # in a block, of a virtual environment
    assert ["--sweep=my_sweep.py"] in commands(README)  # in a table
    assert ["--sweep=list"] in commands(DOCS / "running.md")  # with a comment


@for_each(PAGES)
def test_links_lead_to_files_and_headings(page):
    for target, _, heading in re.findall(r"\]\((?!https?://)([^)#\s]*)(#([^)\s]+))?\)", prose(page)):
        file = (page.parent / target) if target else page
        assert file.is_file(), target
        assert not heading or heading in headings(file), f"{target}#{heading}"


def test_what_reliability_rests_on_is_tested():
    named = re.findall(r"`(\S+\.py)::(\w+)`", text_of(DOCS / "reliability.md"))
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in text_of(ROOT / "tests" / file), f"{file}::{test}"


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= 130


def test_ci_finds_the_test_command():
    block = text_of(README).split("<!-- test command -->\n```bash\n")[1].split("```")[0]
    assert block.splitlines()[-1] == ".venv/bin/python -m pytest"
    assert len(block.splitlines()) == 2


@for_each([README, DOCS / "running.md"])
def test_every_sweep_and_scenario_is_named(page):
    for name in [*sweeps.sweep_names(), *scenario_names()]:
        assert f"`{name}`" in text_of(page)


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": (\S+\.md)$", text_of(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_api_reference_has_every_public_name_and_module():
    places = re.findall(r"\]\[(resilinet_jax[\w.]+)\]", text_of(DOCS / "api" / "index.md"))
    assert sorted(place.rpartition(".")[2] for place in places) == sorted(rj.__all__)
    for module, _, name in (place.rpartition(".") for place in places):
        assert getattr(importlib.import_module(module), name) is getattr(rj, name)

    package = ROOT / "resilinet_jax"
    entries = {entry for page in DOCS.glob("api/*.md") for entry in re.findall(r"^::: (\S+)$", text_of(page), re.M)}
    files = [path for path in package.rglob("[!_]*.py") if path.parent.parent in (ROOT, package)]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert {module for module in modules if not module.endswith("_pb2")} <= entries
    for entry in entries:
        importlib.import_module(entry)


def test_the_architectures_floors_are_those_that_the_linter_checks():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    layers = config["importlinter:contract:floors"]["layers"].split("\n")
    checked = {
        room.strip(): floor
        for floor, layer in enumerate(reversed([layer for layer in layers if layer.strip()]), 1)
        for room in re.split("[|:]", layer)
    }
    section = text_of(DOCS / "architecture.md").split("## Rooms and floors")[1].split("\n## ")[0]
    shown = {room: int(floor) for floor, room in re.findall(r"^\| (\d) \| `(\w+)[/.]", section, re.MULTILINE)}
    assert shown == {**checked, "sweeps": checked["command"], "__main__": checked["command"] + 1}


def test_the_architecture_names_every_module():
    section = text_of(DOCS / "architecture.md").split("## What each room holds")[1].split("\n## ")[0]
    named, room = {}, None
    for first, second in re.findall(r"^\| (?:`(\w+)/`)? ?\| (`.+?) \|", section, re.MULTILINE):
        room = first or room
        named.setdefault(room, set()).update(re.findall(r"`(\w+)/?`", second))
    for room, modules in named.items():
        inside = [path for path in (ROOT / "resilinet_jax" / room).iterdir() if not path.name.startswith("__")]
        assert {path.stem for path in inside} == modules, room
