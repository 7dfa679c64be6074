"""Command lines from frozen dataclasses: one absl flag a field, and a `main` that fails with one line.

A field `seed: int = 0` becomes `--seed`, a field `lr` of a nested dataclass `optimizer` becomes `--optimizer.lr`.
Types: bool, int, float, str, Enum, Literal, tuples of those, `X | None` (written "none"), nested dataclasses.
The help text is `field(metadata={"help": ...})`; range checks are `ValueError`s of `__post_init__`.

Flags live in a `FlagValues` of their own, so that flags which imported libraries define neither show up nor collide.
"""

import csv
import dataclasses
import difflib
import enum
import math
import os
import shutil
import signal
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from absl import flags

from experiments import errors

ConfigT = TypeVar("ConfigT")

_HELP = frozenset({"--help", "-help", "-h", "--helpfull", "-helpfull", "--helpshort", "-helpshort"})
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def run(main: Callable[[ConfigT], int | None], default: ConfigT, argv: Sequence[str] | None = None) -> NoReturn:
    """Parses the command line, calls `main(config)` and exits the process with the outcome.

    Exit codes: what `main` returns (None is 0); 2 for bad flags or an `InputError`, 74 for a `NoRoomError` or a full
    disk, 75 for a signal that arrives before a training loop takes the signals over. Each of those prints one line on
    stderr. Anything else is a defect and keeps its traceback.

    Args:
        main: the program; heavy imports belong inside it.
        default: config with the default values.
        argv: command line with the program name first; by default `sys.argv`.
    """
    argv = list(sys.argv if argv is None else argv)
    if _HELP.intersection(_before_double_dash(argv[1:])):
        print(help_text(default, program=_program(argv[0], main), about=_about(main)))
        sys.exit(errors.EXIT_OK)
    previous = {number: signal.signal(number, _stop) for number in _STOP_SIGNALS}
    try:
        code = _guarded(main, default, argv)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    sys.stdout.flush()
    runtime = sys.modules.get("experiments.runtime")
    if code not in (errors.EXIT_OK, errors.EXIT_STOPPED) and runtime is not None and runtime.is_distributed():
        # The orderly end waits at a barrier for processes that do not know that this one has failed.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def parse(default: ConfigT, argv: Sequence[str]) -> ConfigT:
    """The config that a command line (program name first) asks for.

    Raises:
        InputError: unknown flag (with the nearest names), bad value, value out of range, stray argument.
    """
    values = flags.FlagValues()
    leaves = list(_leaves(default))
    for leaf in leaves:
        _define(leaf, values)
    try:
        rest = values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        raise errors.InputError(_unknown(error.flagname, [leaf.name for leaf in leaves])) from None
    except (flags.Error, OSError, UnicodeDecodeError) as error:
        raise errors.InputError(_one_line(error).removeprefix("ERROR:: ")) from None
    if rest:
        raise errors.InputError(f"unexpected argument {rest[0]!r}; flags are written --name=value (see --help)")
    given = {leaf.name: values[leaf.name].value for leaf in leaves if values[leaf.name].present}
    return _replace(default, {name: None if value is _NONE_GIVEN else value for name, value in given.items()}, "")


def to_dict(config: Any) -> dict[str, Any]:
    """All settings of a config as a flat mapping of flag name to value, in the order of `--help`."""
    return {leaf.name: leaf.value for leaf in _leaves(config)}


def help_text(default: Any, *, program: str, about: str = "") -> str:
    """The answer to `--help`: what the program does, then every flag with its values, default and meaning."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)
    blocks = [f"usage: {program} [--flag=value ...]"]
    if about:
        blocks.append(about)
    groups: dict[str, list[str]] = {"": []}
    for leaf in _leaves(default):
        groups.setdefault(leaf.name.rpartition(".")[0], []).append(_describe(leaf, width))
    blocks += ["\n".join([f"{group or 'flags'}:", *lines]) for group, lines in groups.items() if lines]
    blocks.append("--flagfile=FILE reads flags from a file, one a line. An optional value is unset by --name=none.")
    return "\n\n".join(blocks)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    name: str
    type: Any  # without None
    optional: bool
    value: Any
    help: str


def _leaves(config: Any, prefix: str = "") -> Iterator[_Leaf]:
    hints = typing.get_type_hints(type(config))
    own = type(config).__dict__.get("__annotations__", {})
    # What the experiment itself declares comes before what it shares with all others.
    for item in sorted(dataclasses.fields(config), key=lambda item: item.name not in own):
        name, value = prefix + item.name, getattr(config, item.name)
        if not item.init:
            continue
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{name}.")
        else:
            kind, optional = _split_optional(hints[item.name], name)
            if not _is_supported(kind):
                raise TypeError(f"{name}: there is no flag for the type {kind}")
            yield _Leaf(name, kind, optional, value, item.metadata.get("help", ""))


def _split_optional(kind: Any, name: str) -> tuple[Any, bool]:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False
    rest = [arm for arm in typing.get_args(kind) if arm is not types.NoneType]
    if len(rest) != 1:
        raise TypeError(f"{name}: a flag has one type or `type | None`, not {kind}")
    return rest[0], True


def _define(leaf: _Leaf, values: flags.FlagValues) -> None:
    # The absl default stays None: `parse` keeps the config's own value where a flag was not given.
    is_switch = leaf.type is bool and not leaf.optional
    flags.DEFINE_flag(flags.Flag(_Parser(leaf), None, leaf.name, None, leaf.help, boolean=is_switch), values)


class _Parser(flags.ArgumentParser):
    """Text to the value of one field."""

    def __init__(self, leaf: _Leaf) -> None:
        self._leaf = leaf
        self.syntactic_help = _placeholder(leaf)

    def parse(self, argument: str) -> Any:
        if self._leaf.optional and argument.lower() == "none":
            return _NONE_GIVEN
        return _convert(self._leaf.type, argument)


_NONE_GIVEN = object()  # absl calls a flag that parsed to None not given.


def _is_supported(kind: Any) -> bool:
    if typing.get_origin(kind) is tuple:
        items = [item for item in typing.get_args(kind) if item is not Ellipsis]
        return bool(items) and all(_is_supported(item) and typing.get_origin(item) is not tuple for item in items)
    if typing.get_origin(kind) is typing.Literal:
        return True
    return kind in (bool, int, float, str) or (isinstance(kind, type) and issubclass(kind, enum.Enum))


def _convert(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is tuple:
        return _convert_tuple(typing.get_args(kind), text)
    if typing.get_origin(kind) is typing.Literal:
        return _choose({str(choice): choice for choice in typing.get_args(kind)}, text)
    if kind is str:
        return text
    if kind is bool:
        return _choose({"true": True, "false": False, "1": True, "0": False}, text.lower())
    if kind is int:
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError("expected an integer") from None
    if kind is float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError("expected a number") from None
        if math.isnan(number):
            raise ValueError("expected a number, not NaN")
        return number
    return _choose({member.name: member for member in kind}, text)


def _convert_tuple(items: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in next(csv.reader([text], skipinitialspace=True), [])]
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_convert(items[0], part) for part in parts)
    if len(parts) != len(items):
        raise ValueError(f"expected {len(items)} values separated by commas, got {len(parts)}")
    return tuple(_convert(item, part) for item, part in zip(items, parts, strict=True))


def _choose(choices: dict[str, Any], text: str) -> Any:
    if text not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}{_near(text, choices)}")
    return choices[text]


def _replace(config: Any, given: dict[str, Any], prefix: str) -> Any:
    changes = {}
    for item in dataclasses.fields(config):
        name, value = prefix + item.name, getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            changes[item.name] = _replace(value, given, f"{name}.")
        elif name in given:
            changes[item.name] = given[name]
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise errors.InputError(f"bad flags{f' --{prefix}*' if prefix else ''}: {_one_line(error)}") from error


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"unknown flag --{name}{_near(name, known, '--')} (see --help)"


def _near(name: str, known: Any, prefix: str = "") -> str:
    last_parts = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]]
    candidates = last_parts or difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(prefix + c for c in candidates[:3])}?" if candidates else ""


def _guarded(main: Callable[[ConfigT], int | None], default: ConfigT, argv: list[str]) -> int:
    program = os.path.splitext(os.path.basename(argv[0]))[0]
    try:
        return main(parse(default, argv)) or errors.EXIT_OK
    except errors.InputError as error:
        code, reason = errors.EXIT_INPUT, error
    except errors.NoRoomError as error:
        code, reason = errors.EXIT_NO_ROOM, error.strerror or error
    except OSError as error:
        if error.errno not in errors.NO_ROOM_ERRNOS:
            raise
        code, reason = errors.EXIT_NO_ROOM, f"no room to write {error.filename or ''}: {error.strerror}"
    except (_StoppedError, KeyboardInterrupt):
        code, reason = errors.EXIT_STOPPED, "stopped by a signal; start again with --resume"
    print(f"{program}: {_one_line(reason)}", file=sys.stderr, flush=True)
    return code


class _StoppedError(BaseException):
    """A signal asked the program to stop while no training loop was there to save its state."""


def _stop(number: int, frame: types.FrameType | None) -> NoReturn:
    raise _StoppedError(number)


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())


def _before_double_dash(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _program(argv0: str, main: Callable[..., Any]) -> str:
    spec = getattr(sys.modules.get(main.__module__), "__spec__", None)
    return f"python -m {spec.name}" if spec is not None else f"python {argv0}"


def _about(main: Callable[..., Any]) -> str:
    return (getattr(sys.modules.get(main.__module__), "__doc__", None) or main.__doc__ or "").strip()


def _describe(leaf: _Leaf, width: int) -> str:
    default = "" if leaf.value in (None, (), False) else f" (default: {_show(leaf.value)})"
    head = (
        f"  --[no]{leaf.name}" if leaf.type is bool and not leaf.optional else f"  --{leaf.name}={_placeholder(leaf)}"
    )
    column = 32
    body = textwrap.wrap(
        f"{leaf.help}{default}".strip(), width - column, break_on_hyphens=False, break_long_words=False
    )
    if len(head) < column - 1 and body:
        head, body = head.ljust(column) + body[0], body[1:]
    return "\n".join([head, *(" " * column + line for line in body)])


def _placeholder(leaf: _Leaf) -> str:
    return _kind_in_words(leaf.type) + ("|none" if leaf.optional and leaf.value is not None else "")


def _kind_in_words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"{_kind_in_words(arguments[0])},..."
        return ",".join(_kind_in_words(item) for item in arguments)
    if origin is typing.Literal:
        return "|".join(str(choice) for choice in arguments)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(member.name for member in kind)
    return {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "true|false"}[kind]


def _show(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(_show(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return repr(value) if value == "" else str(value)
