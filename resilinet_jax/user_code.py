"""A scenario in a file of the user's own: loaded once, checked, and its mistakes told with the line they are in.

Imports nothing heavy; what the file imports is its own choice.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import resilinet_jax
from resilinet_jax.errors import CodeError, UserError, one_line, suggest
from resilinet_jax.paths import typed_path
from resilinet_jax.scenarios import Preset, Scenario, is_own, scenario_names

NAME = "SCENARIO"
_LONGEST = 100  # characters of what Python or a library says


class Loaded(NamedTuple):
    """A user's file as it was when it was loaded."""

    source: bytes
    scenario: Scenario


_loaded: dict[pathlib.Path, Loaded] = {}


def load_own(name: str) -> Loaded:
    """Runs a user's file, once, and checks the scenario that it defines.

    Args:
      name: the file's path, as given by `--scenario`.

    Raises:
      UserError: if there is no such file, or for a mistake in it, naming its line.
    """
    path = typed_path(name, "--scenario")
    key = path.absolute()
    if key not in _loaded:
        if not path.is_file():
            raise UserError(
                f"--scenario={name}: no such file; write one as in the README, 'Your own network', "
                f"or take one of {', '.join(scenario_names())}"
            )
        _loaded[key] = _load(name, path)
    return _loaded[key]


def _load(name: str, path: pathlib.Path) -> Loaded:
    source = path.read_bytes()
    # Flax looks its modules' classes up in the module that they say they are from.
    module_name = f"own_scenario_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise UserError(f"--scenario={name}: Python can't import this file; its name must end in .py")
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    with errors_in(name):
        # From the very bytes that count as the scenario's code; nothing is left beside the user's file.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    if not hasattr(module, NAME):
        raise UserError(f"{name}: defines no {NAME}; end it with {NAME} = Scenario(name=..., ...) as in the README")
    scenario = getattr(module, NAME)
    where = f"{name}:{_line_of_assignment(source)}"
    if not isinstance(scenario, Scenario):
        got = f"the class {scenario.__name__}" if isinstance(scenario, type) else type(scenario).__name__
        raise UserError(f"{where}: {NAME} must be a resilinet_jax.Scenario, got {got}; write {NAME} = Scenario(...)")
    _check_fields(where, scenario)
    _check_presets(where, scenario)
    _check_call(name, "load", scenario.load, "settings and preset", None, None)
    for preset, numbers in scenario.presets.items():
        given = f"the number of classes and presets[{preset!r}].network"
        _check_call(name, "build_network", scenario.build_network, given, 2, **numbers.network)
    return Loaded(source, scenario)


@contextlib.contextmanager
def errors_in(name: str, function: Callable | None = None) -> Iterator[None]:
    """Turns what a user's file raises into one line that names the file's own line. Other scenarios' errors pass.

    Args:
      name: as given by `--scenario`.
      function: of the file; its first line is named where none of the file's was running.

    Raises:
      UserError: for every exception inside.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        path = str(typed_path(name, "--scenario"))
        if not is_own(name) or _is_about_data(error, path):
            raise
        line = _line(error, path, getattr(error, "function", None), function)
        raise UserError(f"{name}{f':{line}' if line else ''}: {_told(error)}") from None


def _is_about_data(error: BaseException, path: str) -> bool:
    """What the project's own loaders refuse is a flag or the data, which they name themselves."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = max((place for place, code in enumerate(codes) if code.co_filename == path), default=len(codes))
    return isinstance(error, UserError) and any(code.co_name.startswith("load_") for code in codes[last + 1 :])


def _line(error: BaseException, path: str, *functions: Callable | None) -> int | None:
    """The deepest line of the file that was running; else the first line of the first function that is in it."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    running = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path]
    if running:
        return running[-1]
    return next((line for function in functions if (line := _first_line(function, path)) is not None), None)


def _first_line(function: Callable | None, path: str) -> int | None:
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    return code.co_firstlineno if code is not None and code.co_filename == path else None


def _told(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}; mend this line"
    if unknown := _unknown_field(error):
        return unknown
    said = str(error).strip().split("\n")[0].split(" (https://")[0].rstrip(".:;")
    said = one_line(said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ...")
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()) if "\n" not in note)
    return f"{type(error).__name__}{f': {said}' if said else ''}{where}; {_remedy(error)}"


def _unknown_field(error: BaseException) -> str | None:
    """What to say if a field's name is misspelt; Python does not say which there are."""
    unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = getattr(resilinet_jax, unknown[1]) if unknown and unknown[1] in resilinet_jax.__all__ else None
    if unknown is None or not dataclasses.is_dataclass(kind):
        return None
    fields = [field.name for field in dataclasses.fields(kind)]
    return f"{unknown[1]} has no field {unknown[2]!r}{suggest(unknown[2], fields)}"


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "install it, or write what it holds into this file"
    if isinstance(error, SystemExit):
        return "a scenario's file must only define, not end Python"
    return "mend this line"


def _line_of_assignment(source: bytes) -> int:
    """Where SCENARIO is made; 1 if that is not plain to see."""
    lines = [
        node.lineno
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == NAME
    ]
    return lines[-1] if lines else 1


def _check_fields(where: str, scenario: Scenario) -> None:
    def refuse(field: str, expected: str, got: object) -> UserError:
        return UserError(f"{where}: {NAME}.{field} must be {expected}, got {got!r}")

    if not isinstance(scenario.name, str) or not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", scenario.name, re.ASCII):
        raise refuse("name", "letters, digits, _ - or ., since it names the results' folder", scenario.name)
    if scenario.name in scenario_names():
        raise refuse("name", "none of the project's own, whose results would be mixed with yours", scenario.name)
    if not isinstance(scenario.datasets, tuple) or not all(isinstance(each, str) for each in scenario.datasets):
        raise refuse("datasets", 'a tuple of names, as ("mine",) or ()', scenario.datasets)
    for field in ("load", "build_network", "compiler_options"):
        if not callable(getattr(scenario, field)):
            raise refuse(field, "a function, given by its name without ()", getattr(scenario, field))
    if not isinstance(scenario.failure_settings, Mapping) or not scenario.failure_settings:
        raise refuse("failure_settings", 'as {"normal": {"node": 0.1}}', scenario.failure_settings)
    for setting, failure in scenario.failure_settings.items():
        if not isinstance(setting, str) or not isinstance(failure, Mapping):
            raise refuse(f"failure_settings[{setting!r}]", 'probabilities by node, as {"node": 0.1}', failure)


def _check_presets(where: str, scenario: Scenario) -> None:
    presets = scenario.presets
    if not isinstance(presets, Mapping) or not presets:
        raise UserError(f'{where}: {NAME}.presets must be as {{"quick": Preset(...)}}, got {type(presets).__name__}')
    for name, preset in presets.items():
        field = f"{where}: {NAME}.presets[{name!r}]"
        if not isinstance(name, str) or not isinstance(preset, Preset):
            raise UserError(f"{field} must be a resilinet_jax.Preset, got {type(preset).__name__}; write Preset(...)")
        network: Any = preset.network
        if not isinstance(network, Mapping) or not all(isinstance(key, str) for key in network):
            raise UserError(f"{field}.network must be build_network's further arguments by name, got {network!r}")
        for key, value in network.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                raise UserError(
                    f"{field}.network[{key!r}] must be a number, a text or a tuple of them, got {value!r}; "
                    "make the rest in build_network"
                ) from None


def _check_call(name: str, field: str, function: Callable, given: str, *arguments: Any, **named: Any) -> None:
    """Refuses a function that can't be called as it will be."""
    try:
        inspect.signature(function).bind(*arguments, **named)
    except TypeError as error:
        line = _first_line(function, str(typed_path(name, "--scenario")))
        raise UserError(
            f"{name}{f':{line}' if line else ''}: {NAME}.{field} is called with {given}, but: {error}; "
            "change its parameters"
        ) from None
    except ValueError:  # a function without a signature; the call itself will tell
        return


def checked_result(function: Callable, result: Any, kind: type) -> Any:
    """What a scenario's function has returned, if it is of the kind expected.

    Raises:
      CodeError: if it is not.
    """
    if not isinstance(result, kind):
        raise CodeError(
            f"{function.__name__}() must return a resilinet_jax.{kind.__name__}, got {type(result).__name__}; "
            f"end it with return {kind.__name__}(...)",
            function,
        )
    return result
