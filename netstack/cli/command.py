"""What all commands share: their parser, the way to the host, how they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from netstack import runtime
from netstack.control_client import Control
from netstack.errors import UsageError

Namespace = argparse.Namespace


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

    example = ""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and show one line that works."""
        raise UsageError(message, hint=f"{self.example}\n{self.prog} --help".strip())


@dataclass(frozen=True)
class Command:
    """One command: its options, what it does, examples that work as they stand.

    ``arguments`` is None for a command that reads its words itself: they are ``args.words``.
    """

    run: Callable[[Namespace], int]
    examples: str
    arguments: Callable[[Parser], None] | None = None
    about: str = ""
    asks_host: bool = True  # False: no running host is meant, so --name says nothing

    def __call__(self, name: str, words: Sequence[str], host: str | None) -> int:
        """Parse the words and run."""
        if self.arguments is None:
            return self.run(Namespace(words=list(words), name=host))
        args = self.parser(name).parse_args(words)
        if self.asks_host:
            args.name = args.name or host
        elif host:
            hint = self.examples.strip().splitlines()[0]
            raise UsageError(f"-i {host}: {name} asks no running host", hint=hint)
        return self.run(args)

    def parser(self, name: str) -> Parser:
        """Make the parser, with what every command accepts."""
        examples = self.examples.strip().splitlines()
        parser = Parser(
            prog=f"netstack {name}",
            description=self.about or None,
            epilog="examples\n" + "\n".join(f"  {line}" for line in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.example = examples[0].split("  ")[0].strip()
        if self.arguments is not None:
            self.arguments(parser)
        if self.asks_host:
            parser.add_argument("--name", metavar="NAME", help="which host, when several run")
        parser.add_argument("--json", action="store_true", help="print JSON")
        return parser


def ask(args: Namespace, command: str, **arguments: Any) -> Any:
    """Send one request to the host that is meant and return the answer."""
    with connect(args) as control:
        return control.request(command, **arguments)


def connect(args: Namespace) -> Control:
    """Connect to the host that is meant: named, the only one, or that of a device in the words."""
    words = {getattr(args, "device", ""), *getattr(args, "words", ())}
    return Control.find(runtime.runtime_dir(), args.name, words)


def print_json(data: object) -> None:
    """Print JSON: for people on a terminal, on one line for programs."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(data, indent=indent, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Line columns up: the first ``left`` to the left, the others, numbers, to the right."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    lines = []
    for row in cells:
        parts = [
            text.ljust(width) if n < left else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_number else str(value)
