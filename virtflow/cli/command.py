"""What all commands share: a parser with examples, cliff's formatters without its plugin scan, and the context."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from inspect import getdoc
from typing import TYPE_CHECKING, Any, ClassVar

from cliff.columns import FormattableColumn
from cliff.command import Command as CliffCommand
from cliff.formatters.commaseparated import CSVLister
from cliff.formatters.json_format import JSONFormatter
from cliff.formatters.table import TableFormatter
from cliff.formatters.value import ValueFormatter
from cliff.formatters.yaml_format import YAMLFormatter
from cliff.lister import Lister as CliffLister
from cliff.show import ShowOne as CliffShowOne

from virtflow.cli.usage import ArgumentParser

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.cli.main import Virtflow


class Command(CliffCommand):
    """Base of all commands. The docstring is the help; ``examples`` are shown below it and tried by the tests."""

    app: Virtflow
    examples: ClassVar[tuple[str, ...]] = ()
    app_dist_name = "virtflow"
    on_conflict: ClassVar[str] = "error"
    """argparse's word for what happens when an option has a name of another: ``resolve`` takes it away from that."""

    @property
    def context(self) -> Context:
        """What the command works on, opened when it is first used."""
        return self.app.context

    def _load_hooks(self) -> None:
        # cliff would search the entry points of every installed package, on every command.
        self._hooks = []

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The command's parser, to which subclasses add their arguments."""
        parser = ArgumentParser(
            prog=prog_name,
            description=getdoc(type(self)),
            epilog=self.get_epilog(),
            conflict_handler=self.on_conflict,
        )
        parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return parser

    def get_epilog(self) -> str:
        """The examples."""
        return "\n".join(["examples:", *(f"  {example}" for example in self.examples)])


class Table(TableFormatter):
    """cliff's table, without control characters: a name in somebody's Glance must not reprogram the terminal."""

    def emit_list(self, column_names: Any, data: Any, stdout: Any, parsed_args: argparse.Namespace) -> None:
        rows = [[_harmless(value) for value in row] for row in data]
        super().emit_list(column_names, rows, stdout, parsed_args)

    def emit_one(self, column_names: Any, data: Any, stdout: Any, parsed_args: argparse.Namespace) -> None:
        super().emit_one(column_names, [_harmless(value) for value in data], stdout, parsed_args)


def _harmless(value: Any) -> Any:
    text = value.human_readable() if isinstance(value, FormattableColumn) else value
    return "".join(c for c in text if c.isprintable() or c == "\n") if isinstance(text, str) else text


class CSV(CSVLister):
    """cliff's CSV, also for a single object: a header and one row."""

    def emit_one(self, column_names: Any, data: Any, stdout: Any, parsed_args: argparse.Namespace) -> None:
        self.emit_list(column_names, [data], stdout, parsed_args)


class Formatters:
    """The formatters by name, in the shape of the plugin manager that cliff expects."""

    class Entry:
        def __init__(self, name: str, obj: Any) -> None:
            self.name = name
            self.obj = obj

    def __init__(self) -> None:
        found: dict[str, Any] = {
            "csv": CSV,
            "json": JSONFormatter,
            "table": Table,
            "value": ValueFormatter,
            "yaml": YAMLFormatter,
        }
        self._entries = {name: self.Entry(name, cls()) for name, cls in found.items()}

    def names(self) -> list[str]:
        return list(self._entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())


class Lister(CliffLister, Command):
    """Prints a table: ``take_action`` returns column names and rows."""

    def _load_formatter_plugins(self) -> Any:
        return Formatters()


class ShowOne(CliffShowOne, Command):
    """Prints one object: ``take_action`` returns column names and values."""

    def _load_formatter_plugins(self) -> Any:
        return Formatters()


class Plain(FormattableColumn[Any]):
    """Nested data: as it is in JSON and YAML, one line per entry in a table."""

    def human_readable(self) -> str:
        value = self._value
        if isinstance(value, dict):
            return "\n".join(f"{key}={entry}" for key, entry in value.items())
        if isinstance(value, list):
            return "\n".join(_line(entry) for entry in value)
        return "" if value is None else str(value)


def _line(entry: Any) -> str:
    return "  ".join(str(value) for value in entry.values()) if isinstance(entry, dict) else str(entry)


def row(plain: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    """The named values, ready for every formatter: None is shown empty in a table, and null in JSON."""
    return [
        Plain(plain[name]) if plain[name] is None or isinstance(plain[name], (dict, list)) else plain[name]
        for name in names
    ]
