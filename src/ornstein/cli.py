"""The command line. Each command is one function in `ornstein.commands`, imported when it is called: `--help` stays fast."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import OrnsteinError, unknown_name
from ornstein.core.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMMANDS: dict[str, str] = {
    "sample": 'draw pictures from a sentence:  ornstein sample "a red apple on a yellow background" --out apple.png',
    "train": "train a model by its recipe:  ornstein train rt1-tabletop --out runs/rt1 [--resume]",
    "evaluate": "measure a robot policy:  ornstein evaluate modular-tabletop --suite all --episodes 100 --out results",
    "ask": 'what a vision-language model says of a picture:  ornstein ask vlm-emoji photo.png "where is the lion?"',
    "act": 'what an RT-2 would do about a picture:  ornstein act runs/rt2-tabletop photo.png "pick up the lion"',
    "serve": "a policy for robots to ask, in openpi's protocol:  ornstein serve rt1-tabletop --port 8000",
    "compare": "drawn pictures against real ones, folder against folder:  ornstein compare REAL DRAWN --again MORE-REAL",
    "data": "data sets of robots and pictures:  ornstein data generate | inspect | validate | inspect-pictures",
    "claims": "statements of the field as experiments with a verdict:  ornstein claims [D1 D4 …]",
    "lint-schedule": "what is wrong with a diffusers scheduler_config.json:  ornstein lint-schedule FILE --steps 50",
    "demo": "pictures, guidance, robot videos and a measured success rate in one HTML report",
    "doctor": "what this machine has and lacks, and the command that mends it",
}

_INTERRUPTED = 130
_BROKEN_PIPE = 141  # 128 + SIGPIPE, as of a program that the signal ended


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a check failed, 2 a user's mistake (one line, no traceback), 130 interrupted, 141 cut off."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # a process of our own, and not one in which somebody calls us
        keep_freed_memory()
    try:
        sys.exit(_run(arguments) or 0)
    except OrnsteinError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output (head, less) left
        sys.stderr.close()
        sys.exit(_BROKEN_PIPE)
    except OSError as error:  # an unreadable folder, a name too long, …: the system's own words say what is wrong
        place = f": {error.filename}" if error.filename else ""
        print(f"error: {(error.strerror or str(error)).lower()}{place}", file=sys.stderr)
        sys.exit(2)


def _run(arguments: list[str]) -> int | None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        import ornstein

        print(f"ornstein {ornstein.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    return _call(_command(name), rest, name)


def _command(name: str) -> Callable[..., int | None]:
    match name:
        case "sample":
            from ornstein.commands.sample import sample

            return sample
        case "train":
            from ornstein.commands.train import train

            return train
        case "evaluate":
            from ornstein.commands.evaluate import evaluate

            return evaluate
        case "ask":
            from ornstein.commands.ask import ask

            return ask
        case "act":
            from ornstein.commands.act import act

            return act
        case "serve":
            from ornstein.commands.serve import serve

            return serve
        case "compare":
            from ornstein.commands.compare import compare

            return compare
        case "data":
            from ornstein.commands.data import data

            return data
        case "claims":
            from ornstein.commands.claims import claims

            return claims
        case "lint-schedule":
            from ornstein.commands.lint_schedule import lint_schedule

            return lint_schedule
        case "demo":
            from ornstein.commands.demo import demo

            return demo
        case "doctor":
            from ornstein.commands.doctor import doctor

            return doctor
        case _:
            raise unknown_name("command", name, COMMANDS)


def _call(command: Callable[..., Any], arguments: list[str], name: str) -> int | None:
    # `train` and `data` have sub-commands of their own, `sample` has defaults from a file: they take the raw words.
    if name in ("train", "data", "sample"):
        return command(arguments)
    from ornstein.commands.parsing import call

    return call(command, arguments, name)


def _overview() -> str:
    lines = ["usage: ornstein COMMAND …", "", "From noise to images and actions.", ""]
    lines += [f"  {name:<15}{text}" for name, text in COMMANDS.items()]
    lines += ["", "`ornstein COMMAND --help` explains a command and shows its options with their defaults."]
    return "\n".join(lines)
