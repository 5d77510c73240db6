"""Public functions of three parameters or more say what each parameter is."""

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("resilinet_jax/**/*.py"), *ROOT.glob("sweeps/*.py")])
FEWEST = 3  # parameters that need a list; fewer fit the first sentence
SECTION = re.compile(r"^(?P<indent> *)Args:\n(?P<body>(?:(?P=indent) +.*\n|[ ]*\n)+)", re.MULTILINE)


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public functions of a module, and the public methods and constructors of its public classes."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in [*tree.body, *(member for owner in classes for member in owner.body)]:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name == "__init__" or not node.name.startswith("_"):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of all parameters but `self` and `cls`."""
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [each.arg for each in every if each is not None and each.arg not in ("self", "cls")]


def undescribed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The parameters that the docstring's `Args:` section does not name."""
    section = SECTION.search(f"{ast.get_docstring(function) or ''}\n")
    body = section["body"] if section else ""
    return [name for name in parameters(function) if not re.search(rf"^ +\*{{0,2}}{name}:", body, re.MULTILINE)]


def findings(source: str, where: str) -> list[str]:
    """One line for each public function that leaves a parameter out, with its file and line."""
    return [
        f"{where}:{function.lineno}: {function.name}() does not describe {', '.join(missing)}"
        for function in public_functions(ast.parse(source))
        if len(parameters(function)) >= FEWEST and (missing := undescribed(function))
    ]


def test_every_public_function_of_three_parameters_describes_each():
    assert len(FILES) > 50  # the walk found the code
    found = [line for path in FILES for line in findings(path.read_text("utf-8"), str(path.relative_to(ROOT)))]
    assert not found, "\n".join(["", *found])


def test_an_undescribed_parameter_is_found_and_a_described_one_is_not():
    described = 'def f(a, b, *, c):\n    """Adds.\n\n    Args:\n      a: first.\n      b: second.\n{}    """\n'
    assert findings(described.format("      c: third.\n"), "x.py") == []
    assert findings(described.format("\n    Returns:\n      c: the sum.\n"), "x.py") == [
        "x.py:1: f() does not describe c"
    ]
    assert findings('class A:\n    def __init__(self, a, b, c):\n        """Adds a: b: c:"""\n', "x.py")
    assert findings("def f(a, b, c): ...", "x.py")
    assert not findings("def _f(a, b, c): ...", "x.py")
    assert not findings("def f(a, b): ...", "x.py")
