"""Code of a user's own: a file that is run once, and its mistakes told in one line with the line that they are in.

Imports nothing heavy; what the file imports is its own choice.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import hashlib
import importlib.abc
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from resilinet_jax.errors import CodeError, DataError, UserError, listed, one_line, suggest
from resilinet_jax.files import typed_path

_LONGEST = 100  # characters of what Python or a library says


def is_user_file(name: str) -> bool:
    """Whether a name given to `--scenario` or `--sweep` is the path of a user's file."""
    return name.endswith(".py")


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A user's file as it was when it was run.

    Attributes:
      name: its path as typed.
      path: that path, with the home folder in place of ~.
      source: its bytes.
      namespace: what it defines, by name.
      helpers: the bytes of the files beside it that it imports, by path, and of those that they import.
    """

    name: str
    path: pathlib.Path
    source: bytes
    namespace: Mapping[str, Any]
    helpers: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def version(self) -> str:
        """Digest of the code and its helpers', comments aside, shortened to 12 hexadecimal digits."""
        helpers = [f"\n{pathlib.Path(path).name}\n{_code(source)}" for path, source in sorted(self.helpers.items())]
        return hashlib.sha256("".join([_code(self.source), *helpers]).encode()).hexdigest()[:12]

    def place(self, error: BaseException, *functions: Callable | None) -> str:
        """`file:line` that an error is about.

        Args:
          error: raised while the file, or a helper of it, was running, or by what looked at it.
          functions: whose first line is named where no line of the file was running; the first that is in it counts.

        Returns:
          The deepest line of the file or a helper that was running; the file's name alone where none is to blame.
        """
        names = {str(self.path): self.name} | {path: pathlib.Path(path).name for path in self.helpers}
        if isinstance(error, SyntaxError) and error.filename in names:
            return f"{names[error.filename]}:{error.lineno}"
        frames = traceback.walk_tb(error.__traceback__)
        running = [(frame.f_code.co_filename, line) for frame, line in frames if frame.f_code.co_filename in names]
        if running:
            return f"{names[running[-1][0]]}:{running[-1][1]}"
        lines = (_first_line(function, str(self.path)) for function in functions)
        return next((f"{self.name}:{line}" for line in lines if line is not None), self.name)

    def where(self, variable: str) -> str:
        """`file:line` of the assignment to a variable; of line 1 if there is no plain one."""
        lines = [
            node.lineno
            for node in ast.parse(self.source).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and target.id == variable
        ]
        return f"{self.name}:{lines[-1] if lines else 1}"

    def define(self, variable: str, kind: type, page: str) -> Any:
        """The value of a variable that the file has to define.

        Args:
          variable: its name.
          kind: a class of `resilinet_jax` that the value must be of.
          page: of the documentation that shows such a file.

        Raises:
          UserError: if there is none, or it is of another kind.
        """
        made = f"{variable} = {kind.__name__}(...)"
        if variable not in self.namespace:
            raise UserError(f"{self.name}: defines no {variable}; end it with {made} as in docs/{page}")
        value = self.namespace[variable]
        if not isinstance(value, kind):
            got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise UserError(
                f"{self.where(variable)}: {variable} must be a resilinet_jax.{kind.__name__}, got {got}; write {made}"
            )
        return value

    def check_call(self, field: str, function: Callable, given: str, *arguments: Any, **named: Any) -> None:
        """Refuses a function of the file that can't be called as it will be.

        Args:
          field: where the function was given, for the message.
          function: to be called.
          given: the arguments, for the message.
          arguments: as many as there will be, of any value.
          named: the same by name.

        Raises:
          UserError: naming the function's line.
        """
        try:
            inspect.signature(function).bind(*arguments, **named)
        except TypeError as error:
            line = _first_line(function, str(self.path))
            raise UserError(
                f"{self.name}{f':{line}' if line else ''}: {field} is called with {given}, but: {error}; "
                "change its parameters"
            ) from None
        except ValueError:  # a function without a signature; the call itself will tell
            return


_loaded: dict[pathlib.Path, UserFile] = {}


def load_user_file(name: str, flag: str, remedy: str) -> UserFile:
    """Runs a user's file, once in a process.

    Args:
      name: the file's path as typed.
      flag: that it was given to.
      remedy: what to do where there is no such file.

    Raises:
      UserError: if there is no such file, or for a mistake in it, naming its line.
    """
    path = typed_path(name, flag)
    key = path.absolute()
    if key not in _loaded:
        if not path.is_file():
            raise UserError(f"{flag}={name}: no such file; {remedy}")
        _loaded[key] = _run(name, path, flag, path.read_bytes())
    return _loaded[key]


def take_user_file(name: str, sources: Mapping[str, bytes]) -> None:
    """Runs a user's file of another machine, once in a process; `load_user_file` then finds it by its path there.

    Args:
      name: that path, absolute.
      sources: the bytes of the file and of its helpers, by their paths there.

    Raises:
      UserError: for a mistake in the file, or if a module of this machine takes a helper's name.
    """
    path = pathlib.Path(name)
    if path in _loaded:
        return
    helpers = {place: source for place, source in sources.items() if place != name}
    modules = {pathlib.Path(place).relative_to(path.parent).parts[0].removesuffix(".py") for place in helpers}
    if taken := modules & sys.modules.keys():
        raise UserError(f"{name}: other modules are called {listed(sorted(taken))}; give the helpers other names")
    sys.meta_path.insert(0, _Sent(path.parent, helpers))
    _loaded[path] = _run(name, path, "--scenario", sources[name], helpers)


class _Sent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports from their bytes what lies beside a user's file on another machine, at any time and without a copy."""

    def __init__(self, folder: pathlib.Path, sources: Mapping[str, bytes]):
        self._folder, self._sources = folder, sources

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        base = self._folder.joinpath(*fullname.split("."))
        spec = None
        for place in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if str(place) in self._sources:
                spec = ModuleSpec(fullname, self, origin=str(place), is_package=place.parent == base)
                spec.has_location = True
        if spec is None and any(base in pathlib.Path(place).parents for place in self._sources):
            spec = ModuleSpec(fullname, None, is_package=True)  # a folder without __init__.py
        return spec

    def exec_module(self, module: ModuleType) -> None:
        origin = str(module.__spec__ and module.__spec__.origin)
        exec(compile(self._sources[origin], origin, "exec", dont_inherit=True), module.__dict__)


def _run(
    name: str, path: pathlib.Path, flag: str, source: bytes, helpers: Mapping[str, bytes] | None = None
) -> UserFile:
    # Flax looks its modules' classes up in the module that they say they are from.
    module_name = f"user_code_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise UserError(f"{flag}={name}: Python can't import this file; its name must end in .py")
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    # As for any script, but behind what is installed: a file beside it must not take the place of a library.
    if (folder := str(path.absolute().parent)) not in sys.path:
        sys.path.append(folder)
    helpers = _helpers(source, path.absolute()) if helpers is None else helpers
    file = UserFile(name, path, source, module.__dict__, helpers)
    with errors_in(file), _no_flags():
        # From the very bytes that count as the code; nothing is left beside the user's file.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    return file


def _code(source: bytes) -> str:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:  # which its import tells, if it is imported
        return source.hex()


def _helpers(source: bytes, path: pathlib.Path) -> dict[str, bytes]:
    """The files beside a user's file that it imports, at any place in it, and those that they import in turn."""
    found: dict[str, bytes] = {}
    waiting = [source]
    while waiting:
        try:
            tree = ast.parse(waiting.pop())
        except SyntaxError:
            continue
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module]
        for name in {name.split(".")[0] for name in names}:
            for file in _beside(path, name):
                if str(file) not in found:
                    found[str(file)] = file.read_bytes()
                    waiting.append(found[str(file)])
    return found


def _beside(path: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The files of a module or package that Python finds beside a user's file."""
    module, package = path.with_name(f"{name}.py"), path.with_name(name)
    if name == "resilinet_jax" or not (module.is_file() or package.is_dir()):
        return []
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin == str(module) != str(path):
        return [module]
    ours = spec is not None and str(package) in (spec.submodule_search_locations or ())
    return sorted(package.rglob("*.py")) if ours else []


@contextlib.contextmanager
def _no_flags() -> Iterator[None]:
    """Refuses a parser of the file's own that reads the command line: its flags are the project's."""
    kept = argparse.ArgumentParser.parse_known_args

    def parse(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        if args is None:
            raise UserError("argparse finds no flags of its own here; put numbers of your own into Preset.network")
        return kept(parser, args, namespace)

    argparse.ArgumentParser.parse_known_args = parse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_known_args = kept  # type: ignore[method-assign]


@contextlib.contextmanager
def errors_in(file: UserFile | None, function: Callable | None = None) -> Iterator[None]:
    """Turns what a user's file raises into one line that names the file's own line.

    Args:
      file: whose code runs meanwhile; None for the project's own, whose errors pass.
      function: of the file; its first line is named where none of the file's was running.

    Raises:
      UserError: for every exception inside, but for what is wrong with data or a flag, which passes.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if file is None or isinstance(error, DataError):
            raise
        place = file.place(error, getattr(error, "function", None), function)
        raise UserError(f"{place}: {_message(error, file.namespace)}") from None


def _first_line(function: Callable | None, path: str) -> int | None:
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    return code.co_firstlineno if code is not None and code.co_filename == path else None


def _message(error: BaseException, namespace: Mapping[str, Any]) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}; mend this line"
    if unknown := _unknown_field(error, namespace):
        return unknown
    said = str(error).strip().split("\n")[0].split(" (https://")[0].rstrip(".:;")
    said = one_line(said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ...")
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()) if "\n" not in note)
    return f"{type(error).__name__}{f': {said}' if said else ''}{where}; {_remedy(error)}"


def _unknown_field(error: BaseException, namespace: Mapping[str, Any]) -> str | None:
    """What to say if a dataclass' field is misspelt; Python does not say which fields there are."""
    unknown = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if unknown is None:
        return None
    # The class as the file knows it: by its own name, or as a part of a module that it imported.
    modules = [value for value in namespace.values() if isinstance(value, ModuleType)]
    found = [namespace.get(unknown[1]), *(getattr(module, unknown[1], None) for module in modules)]
    for kind in found:
        if dataclasses.is_dataclass(kind):
            return f"{unknown[1]} has no field {unknown[2]!r}{suggest(unknown[2], _names_of_fields(kind))}"
    return None


def _names_of_fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.metadata.get("given", True)]


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "install it, or put it beside this file"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "write import helper for the helper.py beside this file"
    if isinstance(error, SystemExit):
        return "such a file must only define, not end Python"
    if isinstance(error, ValueError) and re.search("for (JAX flag|environment) ", str(error)):  # JAX was imported
        return "change that environment variable, or unset it"
    return "mend this line"


def checked_result(function: Callable, result: Any, kind: type) -> Any:
    """What a function of a user's has returned, if it is of the kind expected.

    Args:
      function: the user's, which the message names.
      result: what it returned.
      kind: class that the result must be an instance of.

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
