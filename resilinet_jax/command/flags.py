"""The command line's flags, made from the fields of `Settings` and `Mode`."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from resilinet_jax.command.settings import Mode, Settings
from resilinet_jax.errors import UserError, error_line

_OWNERS = (Settings, Mode)
_EXPECTED = {int: "an integer", float: "a number"}


class _Number(flags.ArgumentParser):
    """Parses a number, and says what it expected in words."""

    def __init__(self, name: str, kind: type):
        self._name, self._kind = name, kind

    def parse(self, argument: Any) -> Any:
        try:
            return self._kind(argument)
        except ValueError:
            raise UserError(f"--{self._name} must be {_EXPECTED[self._kind]}, got {argument!r}") from None


def define_flags() -> flags.FlagValues:
    """A flag for each field of `Settings` and `Mode`, unparsed."""
    values = flags.FlagValues()
    for owner in _OWNERS:
        kinds = typing.get_type_hints(owner)
        for field in dataclasses.fields(owner):
            default = None if field.default is dataclasses.MISSING else field.default
            (kind,) = set(typing.get_args(kinds[field.name]) or (kinds[field.name],)) - {type(None)}
            text = field.metadata["help"]
            if kind in _EXPECTED:
                parser, written = _Number(field.name, kind), flags.ArgumentSerializer[Any]()
                flags.DEFINE(parser, field.name, default, text, values, written, allow_overwrite=False)
            elif kind is bool:
                flags.DEFINE_bool(field.name, default, text, values, allow_overwrite=False)
            else:
                flags.DEFINE_string(field.name, default, text, values, allow_overwrite=False)
    flags.DEFINE_bool("help", False, "Shows this.", values)
    return values


def parse_flags(argv: Sequence[str]) -> tuple[dict[str, Any], Mode]:
    """The fields of `Settings` by name, as given, and the mode.

    Args:
      argv: the command line, the program's name first.

    Raises:
      UserError: for what is no flag, or a value that a flag can't have.
      SystemExit: after `--help`.
    """
    values = define_flags()
    # Alone it is a cluster of one's own; absl would take the next flag for its address.
    argv = ["--ray=local" if each in ("--ray", "-ray") else each for each in argv]
    extra = _parsed(values, argv)[1:]
    if values["help"].value:
        print(f"Failure-resilient distributed neural networks: sweeps over failure settings.\n{values.get_help()}")
        sys.exit(0)
    if extra:
        raise UserError(f"unexpected argument {extra[0]!r}; flags start with --, as in --sweep=failout_rate")
    given: dict[type, dict[str, Any]] = {
        owner: {field.name: values[field.name].value for field in dataclasses.fields(owner)} for owner in _OWNERS
    }
    return given[Settings], Mode(**given[Mode])


def _parsed(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    try:
        return values(argv)
    except flags.UnrecognizedFlagError as error:
        name, *value = error.flagname.split(maxsplit=1)
        if value:  # in a file of flags a line is one argument
            raise UserError(f"--{error.flagname}: write --{name}={value[0]}, with = instead of the blank") from None
        close = difflib.get_close_matches(error.flagname, values, n=1)
        hint = f"; did you mean --{close[0]}?" if close else ""
        raise UserError(f"unknown flag --{error.flagname}{hint} (--help shows all)") from None
    except flags.Error as error:
        cause = error.__context__
        if isinstance(cause, UserError):  # of a parser of ours, wrapped
            raise cause from None
        if isinstance(cause, OSError):
            raise UserError(f"--flagfile can't be read: {error_line(cause)}") from None
        if "already defined" in str(error):
            raise UserError(f"--{str(error).split('=')[0].removeprefix('flag --')} is given twice; keep one") from None
        if "Non-boolean" in str(error):
            raise UserError(f"{str(error).split(': ')[0].removeprefix('flag ')} must be true or false") from None
        raise UserError(str(error)) from None
    except UnicodeDecodeError:  # nothing else than such a file is read
        raise UserError("--flagfile must name a text file with a flag a line, got bytes that are no text") from None
