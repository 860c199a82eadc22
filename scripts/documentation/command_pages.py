"""The command reference, from the parsers themselves."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from inspect import getdoc
from typing import Any

from scripts.documentation.pages import NOTICE
from virtflow.cli.commands import TABLE
from virtflow.cli.main import Virtflow

_INTRODUCTION = """\
# Commands

`virtflow [global options] COMMAND [options]`. Results go to stdout, progress and errors to stderr; the exit code says
[how it ended](exit-codes.md). `virtflow help COMMAND` shows what stands here.

An ID of an operation is its number, its uuid, or the beginning of it (four characters at least); `--last` is the
latest operation."""
_FORMATS = """\
## Output

Commands that print a table or an object take:

| option | meaning |
|---|---|
| `-f FORMAT` | `table` (the default), `json`, `yaml`, `csv` or `value` |
| `-c COLUMN` | only this column; may be given several times |
| `--noindent` | JSON on one line |
| `--max-width N`, `--fit-width` | how wide a table may be |
| `--quote WHEN` | what CSV puts in quotes: `all`, `minimal`, `none` or `nonnumeric` |
| `--sort-column COLUMN`, `--sort-ascending`, `--sort-descending` | the order of a list |"""


def commands_page() -> str:
    """The whole page."""
    app = Virtflow(io.StringIO(), io.StringIO())
    parts = [NOTICE.format(script="reference-pages") + _INTRODUCTION, "## Global options"]
    parts += ["They stand before the command.", _table(app.parser)]
    parts += [_FORMATS]
    for name in sorted(TABLE):
        parts += _command(app, name)
    return "\n\n".join(parts) + "\n"


def _command(app: Virtflow, name: str) -> Iterator[str]:
    command: Any = app.command_manager.commands[name].load()
    parser = command(app, argparse.Namespace(), cmd_name=name).get_parser(f"virtflow {name}")
    yield f"## {name}"
    yield (getdoc(command) or "").strip()
    table = _table(parser)
    if table:
        yield table
    yield "```sh\n" + "\n".join(command.examples) + "\n```"


def _table(parser: argparse.ArgumentParser) -> str:
    groups = [group for group in parser._action_groups if group.title in ("positional arguments", "options")]
    actions = [
        action
        for group in groups
        for action in group._group_actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]
    if not actions:
        return ""
    rows = [f"| {_usage(action)} | {_cell(action.help or '')} |" for action in actions]
    return "\n".join(["| argument | meaning |", "|---|---|", *rows])


def _usage(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else None
    if value is None and action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if value is None and action.nargs != 0:
        value = action.dest.upper()
    if not action.option_strings:
        return f"`{_cell(value or action.dest)}`" + (" (may be left out)" if action.nargs == "?" else "")
    takes = action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction)
    spellings = ", ".join(f"`{text}{' ' + _cell(value or '') if takes else ''}`" for text in action.option_strings)
    again = " (may be given several times)" if isinstance(action, argparse._AppendAction) else ""
    return spellings + again


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
