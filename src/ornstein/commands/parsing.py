"""From words to a call: tyro reads them, and a mistake becomes one line."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

from ornstein.core.errors import DataError, OrnsteinError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Result = TypeVar("Result")
_OPTION = re.compile(r"--[\w.+-]+")


class UsageError(OrnsteinError):
    """An option or argument is unknown, missing or of the wrong type."""


def call(command: Callable[..., Result], arguments: Sequence[str], name: str) -> Result:
    """Call `command` with its parameters read from `arguments`. `name` is what the user typed before them.

    Raises:
        UsageError: they do not fit. SystemExit: 0, after printing the help that was asked for.
    """

    @functools.wraps(command)
    def remember(*positional: Any, **named: Any) -> functools.partial[Result]:
        return functools.partial(command, *positional, **named)

    return read(remember, arguments, name)()


def read(target: Any, arguments: Sequence[str], name: str, *, default: Any = None) -> Any:
    """What `target` (a dataclass or function) makes of the words. Errors as for `call`.

    Args:
        default: an instance of `target` whose values stand for what the words leave out.
    """
    given = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.ExitStack() as stack:
            if not {"-h", "--help"} & set(arguments):  # tyro draws its boxes in what standard output can show
                stack.enter_context(contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")))
            return tyro.cli(target, args=list(arguments), prog=f"ornstein {name}", **given)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    raise UsageError(_in_one_line(said.getvalue(), arguments, name))


def _in_one_line(box: str, arguments: Sequence[str], name: str) -> str:
    """tyro frames its message, the nearest options and a pointer to the help in a box, with a rule between the parts."""
    parts: list[list[str]] = [[]]
    for line in re.findall(r"^│ (.*?)\s*│$", box, re.MULTILINE):
        if re.fullmatch("─{8,}", line):
            parts.append([])
        else:
            parts[-1].append(line)
    message, rest = parts[0], parts[1:]
    if message and message[0].startswith("Missing from"):
        missing = [line.strip() for line in message[1:] if re.match(r" {4}\S", line)]
        text = f"{' and '.join(missing)} missing"
    else:
        text = " ".join(line.strip() for line in message) or f"cannot read {shlex.join(arguments)!r}"
        text = text[0].lower() + text[1:].removesuffix(".")
    near = [
        match.group()
        for part in rest
        if part and part[0].startswith("Perhaps")
        for line in part
        if (match := _OPTION.match(line.strip()))
    ]
    if near:
        text += f": did you mean {' or '.join(dict.fromkeys(near))}?"
    return f"{text} (see `ornstein {name} --help`)"


def require_png(path: Path, option: str) -> None:
    """Before anything is computed.

    Raises:
        DataError: it is no .png file in a folder that exists.
    """
    if path.suffix.lower() != ".png" or not path.absolute().parent.is_dir():
        raise DataError(f"{option} takes a .png file in a folder that exists, got {str(path)!r}")
