r"""A sweep's report as what a paper takes in: LaTeX tables, a macro for each number, vector figures, references.

Numbers are macros, so that a text follows the results: `\ResilinetNormalAccuracy{}`. Tables need booktabs, figures
graphicx, and nothing else.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resilinet_jax.errors import UserError
from resilinet_jax.report.figures import Drawn
from resilinet_jax.report.markup import latex
from resilinet_jax.report.page import Page
from resilinet_jax.report.tables import GAP, Table, comparison_table
from resilinet_jax.results.comparisons import while_failing
from resilinet_jax.results.metric_names import ACCURACY
from resilinet_jax.results.record import Record
from resilinet_jax.results.results import mean, sample_deviation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "paper"
WIDTH = 3.35  # inches of a column of IEEE's two
# STIX comes with matplotlib and has the forms of Times; fonts of kind 42 are TrueType, which publishers ask for.
STYLE: Any = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "pdf.fonttype": 42,
    "font.size": 8,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.5,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
}
COLUMN, PAGE = 60, 125  # letters of \footnotesize that a table has room for in a column, and across both

# Equal numbers may come from several sweeps of a scenario; unequal ones under one name must not pass unnoticed.
_DEFINE = r"""\providecommand{\resilinetprefix}{}
\providecommand{\resilinetdefine}[2]{\def\resilinetvalue{#2}%
  \ifx#1\relax\let#1\resilinetvalue\else\ifx#1\resilinetvalue\else
  \PackageError{resilinet}{\string#1 has two values}%
    {Say \string\def\string\resilinetprefix{Second} in front of the second \string\input.}\fi\fi}
\providecommand{\resilinetnumber}[2]{\expandafter\resilinetdefine\csname\resilinetprefix#1\endcsname{#2}}
"""
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
_SPELT = {str(digit): word for digit, word in enumerate(_DIGITS)}
_SPELT |= {".": "Point", "+": "Plus", "-": "Minus", "−": "Minus", "→": "To", "%": "Percent", "²": "Squared"}
_UNIT = re.compile(r"\((?:%|points[^()]*|bytes)\)")
_VALUE = re.compile(r"\d|n/a")
_WORD = re.compile(r"[A-Za-z]+|[\d+%−→²]|(?<=\d)\.(?=\d)|(?<!\w)-(?=\d)", re.ASCII)

# Of the method's paper and this software, as in CITATION.cff, and of data sets by their names in a record.
METHOD = r"""@article{yousefpour2020failout,
  author = {Yousefpour, Ashkan and Nguyen, Brian Q. and Devic, Siddhartha and Wang, Guanhua and Kreidieh, Aboudy and
            Lobel, Hans and Bayen, Alexandre M. and Jue, Jason P.},
  title = {Failout: Achieving Failure-Resilient Inference in Distributed Neural Networks},
  journal = {arXiv preprint arXiv:2002.07386},
  year = {2020},
  url = {https://arxiv.org/abs/2002.07386}
}
"""
SOFTWARE = r"""@misc{resilinetjax,
  author = {{resilinet\_jax developers}},
  title = {{resilinet\_jax}},
  howpublished = {Software},
  note = {Version %s}
}
"""
DATASETS = {
    "mhealth": r"""@inproceedings{banos2014mhealthdroid,
  author = {Banos, Oresti and Garcia, Rafael and Holgado-Terriza, Juan A. and Damas, Miguel and Pomares, Hector and
            Rojas, Ignacio and Saez, Alejandro and Villalonga, Claudia},
  title = {{mHealthDroid}: A Novel Framework for Agile Development of Mobile Health Applications},
  booktitle = {Ambient Assisted Living and Daily Activities (IWAAL 2014)},
  year = {2014}
}
""",
    "cifar10": r"""@techreport{krizhevsky2009cifar,
  author = {Krizhevsky, Alex},
  title = {Learning Multiple Layers of Features from Tiny Images},
  institution = {University of Toronto},
  year = {2009}
}
""",
    "imagenet2012": r"""@article{russakovsky2015imagenet,
  author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean and
            Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. and
            Fei-Fei, Li},
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  journal = {International Journal of Computer Vision},
  year = {2015}
}
""",
    "digits": r"""@misc{alpaydin1998digits,
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  title = {Optical Recognition of Handwritten Digits},
  howpublished = {UCI Machine Learning Repository},
  year = {1998}
}
""",
}


def paper_files(page: Page, figures: Sequence[Drawn]) -> dict[str, bytes]:
    """The files of the folder `paper`, by their paths in the sweep's folder; equal reports give equal bytes.

    Args:
      page: what the report says.
      figures: drawn in `STYLE`.
    """
    told = [page.record.command, *page.notes]
    head = "".join(f"% {latex(line)}\n" for line in told)
    numbers = "".join(f"\\resilinetnumber{{{name}}}{{{value}}}\n" for name, value in macros(page).items())
    texts = {
        "tables.tex": head + "\n".join(_tables(page)),
        "numbers.tex": f"{head}% {page.results.told_by.plural_title} in %, differences in points.\n{_DEFINE}{numbers}",
        "references.bib": references(page.record),
    }
    files = {name: text.encode() for name, text in texts.items()} | {f"{each.name}.pdf": _pdf(each) for each in figures}
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def references(record: Record) -> str:
    """BibTeX entries of the method's paper, of this software, and of the data set if it is a published one."""
    version = record.flat().get("environment.versions.resilinet_jax", "unknown")
    return "\n".join([METHOD, SOFTWARE % latex(version), *filter(None, [DATASETS.get(str(record.dataset["name"]))])])


def macro_name(*parts: str) -> str:
    """A macro's name, which has letters only: `macro_name("failout_0.05")` is `FailoutZeroPointZeroFive`."""
    words = (word for part in parts for word in _WORD.findall(part))
    return "".join(_SPELT.get(word, word.capitalize()) for word in words)


def macros(page: Page) -> dict[str, str]:
    """Every number of a report as LaTeX, by its macro's name.

    Raises:
      UserError: if two numbers would have the same name.
    """
    named: dict[str, str] = {}
    for parts, value in _numbers(page):
        name = macro_name(*parts)
        if name in named:
            raise UserError(f"two numbers would be \\{name}, one of them {' '.join(parts)!r}; rename a cell, or a row")
        named[name] = value
    return named


def _numbers(page: Page) -> Iterator[tuple[tuple[str, ...], str]]:
    """What each number is, in parts of a name, and the number: of cells, of comparisons, and of entries of tables."""
    results = page.results
    by = [results.told_by.name] * (results.metric != ACCURACY)  # numbers of two metrics go into one document
    for cell in results.cells:
        values = {setting: results.average(cell, setting) for setting in results.failure_settings}
        values |= {while_failing(each): results.under(cell, each) for each in results.shown_sets(results.usual_setting)}
        for where, runs in values.items():
            yield (cell, where, results.told_by.name), _hundredfold(mean(runs))
            yield (cell, where, *by, "deviation"), _hundredfold(sample_deviation(runs))
    for each in page.family.comparisons:
        yield (each.pair, each.where, *by, "difference"), _hundredfold(each.difference.mean)
        yield (each.pair, each.where, *by, "half", "width"), _hundredfold(each.difference.half_width)
    for number, table in enumerate(page.tables, 1):
        for row in table.rows:
            for column in range(table.names, len(row)):
                if re.search(r"\d", row[column]):
                    place = (page.record.sweep, *by, f"table {number}", *row[: table.names], table.columns[column])
                    yield place, latex(row[column])


def _hundredfold(fraction: float) -> str:
    return latex(f"{100 * fraction:.2f}") if np.isfinite(fraction) else "n/a"


def _tables(page: Page) -> Iterator[str]:
    """Every table as a float with a caption and a label, in parts where it is wider than a page."""
    results = page.results
    by = [results.metric] * (results.metric != ACCURACY)
    over = f". Mean ± sample deviation over {results.units.runs(results.runs)}"
    spread = over * (results.runs > 1 and results.combinations.complete)
    compared = [comparison_table(page.family)] if page.family.comparisons else []
    for number, table in enumerate([*page.tables, *compared], 1):
        measured = number <= len(page.tables) and any("±" in entry for row in table.rows for entry in row)
        where = "" if number <= len(page.tables) else f", on {page.record.dataset['name']}"
        caption = latex(f"{table.title}{where}{spread * measured}.")
        widths = [max(map(len, column)) + 1 for column in zip(table.columns, *table.rows)]
        parts = table.parts(widths, PAGE)
        for letter, part in zip("abcdefghijklmnopqrstuvwxyz", parts):
            label = re.sub(
                "[^a-z0-9]+", "-", "-".join([page.record.scenario, page.record.sweep, *by, f"{number}"]).lower()
            )
            wide = sum(widths[column] + GAP for column in part) > COLUMN
            yield _latex_table(table, part, caption, f"tab:{label}{letter * (len(parts) > 1)}", wide)


def _latex_table(table: Table, part: Sequence[int], caption: str, label: str, wide: bool) -> str:
    """Some columns of a table in LaTeX; the quantity and unit that the title tells stand above their headings.

    Args:
      table: whose they are.
      part: the columns, by number.
      caption: in LaTeX.
      label: to refer to it.
      wide: whether it goes across both columns of a page.
    """
    import pandas as pd

    unit = re.match(f".*?{_UNIT.pattern}", table.title)
    entries = [[row[column] for row in table.rows] for column in part]
    valued = [c >= table.names and any(map(_VALUE.search, rows)) for c, rows in zip(part, entries)]
    headed = [bool(unit) and value and not _UNIT.search(table.columns[c]) for c, value in zip(part, valued)]
    quantity = latex(unit[0]) if unit else ""
    headings = [(quantity if under else "", latex(table.columns[c])) for c, under in zip(part, headed)]
    rows = list(zip(*map(_aligned, entries)))
    columns = pd.MultiIndex.from_tuples(headings) if any(headed) else [heading for _, heading in headings]
    made = (
        pd.DataFrame(rows, columns=columns)
        .style.hide(axis="index")
        .to_latex(
            hrules=True,
            caption=caption,
            label=label,
            column_format="".join("r" if value else "l" if c < table.names else "c" for c, value in zip(part, valued)),
            position="tbp",
            position_float="centering",
            multicol_align="c",
            environment="table*" if wide else "table",
        )
    )
    made = made.replace("\\centering\n", "\\centering\\footnotesize\n")
    if any(headed):
        first, last = headed.index(True) + 1, len(headed) - headed[::-1].index(True)
        made = made.replace(" \\\\\n", f" \\\\\n\\cmidrule(lr){{{first}-{last}}}\n", 1)
    return made


def _aligned(entries: Sequence[str]) -> list[str]:
    """Entries of a column in LaTeX, which stand under each other where they end at the right."""
    split = [re.fullmatch(r"(.* ± )([\d.,]+)", entry) for entry in entries]
    widest = max((len(found[2]) for found in split if found), default=0)
    return [
        latex(found[1]) + r"\phantom{0}" * (widest - len(found[2])) + latex(found[2]) if found else latex(entry)
        for entry, found in zip(entries, split)
    ]


def _pdf(drawn: Drawn) -> bytes:
    """A figure in the width of a column, as high as its text needs; the same whenever it is drawn."""
    from matplotlib import rc_context

    figure: Figure = drawn.figure
    figure.set_size_inches(WIDTH, figure.get_figheight() * STYLE["font.size"] / 10)
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()
