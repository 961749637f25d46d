"""What the parsers of all verbs are made of: options many have, and values they check"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from vsa_core.errors import UsageError, meant

# Of text nothing is something that can be said; of a verb its choices tell.
_MAY_BE_EMPTY = {"text", "reason", "verb", "action", "fusion_action"}
_CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)")  # argparse's words


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is an error like any other.

    An empty argument is refused: it is a variable that is not set, and as a path it would be the
    current folder.
    """

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string.strip() and action.dest not in _MAY_BE_EMPTY:
            raise argparse.ArgumentError(action, "is empty: is a variable not set?")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong as a UsageError."""
        if chosen := _CHOICE.search(message):
            word, names = chosen.groups()
            message += meant(word, re.findall(r"'([^']*)'", names))
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def added(parsers: Any, name: str, short: str, long: str, example: str) -> argparse.ArgumentParser:
    """A parser of its own below others, with an example of its use."""
    found: argparse.ArgumentParser = parsers.add_parser(
        name, help=short, description=long, epilog=f"example: {example}"
    )
    return found


def add_store(verb: argparse.ArgumentParser) -> None:
    """`--store`."""
    verb.add_argument(
        "--store",
        default="store",
        metavar="DIR",
        help="folder of the tables, or where they are on an object store: s3://bucket/prefix "
        "(default: ./store)",
    )


def add_config(verb: argparse.ArgumentParser) -> None:
    """`--config` and `--profile`."""
    verb.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML settings laid over the profile"
    )
    verb.add_argument(
        "--profile",
        metavar="NAME",
        help="set of models and settings: embedded (default), standard, multilingual",
    )


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",")]


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return found


def risk(text: str) -> float:
    """A number between 0 and 1."""
    found = share(text)
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return found


def seed(text: str) -> int:
    """A whole number that numpy takes as a seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 4294967295")
    return int(text)
