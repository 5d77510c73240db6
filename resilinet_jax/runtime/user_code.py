"""Code of a user's own: a file that is run once, and its mistakes told in one line with the line that they are in.

Imports nothing heavy; what the file imports is its own choice.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from resilinet_jax.errors import CodeError, DataError, UserError, one_line, suggest
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
    """

    name: str
    path: pathlib.Path
    source: bytes
    namespace: Mapping[str, Any]

    def version(self) -> str:
        """Digest of the code, comments aside, shortened to 12 hexadecimal digits."""
        return hashlib.sha256(ast.dump(ast.parse(self.source)).encode()).hexdigest()[:12]

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
        _loaded[key] = _run(name, path, flag)
    return _loaded[key]


def _run(name: str, path: pathlib.Path, flag: str) -> UserFile:
    source = path.read_bytes()
    # Flax looks its modules' classes up in the module that they say they are from.
    module_name = f"user_code_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise UserError(f"{flag}={name}: Python can't import this file; its name must end in .py")
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    file = UserFile(name, path, source, module.__dict__)
    with errors_in(file):
        # From the very bytes that count as the code; nothing is left beside the user's file.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    return file


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
        line = _line(error, str(file.path), getattr(error, "function", None), function)
        raise UserError(f"{file.name}{f':{line}' if line else ''}: {_message(error, file.namespace)}") from None


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
        return "install it, or write what it holds into this file"
    if isinstance(error, SystemExit):
        return "such a file must only define, not end Python"
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
