"""How the commands of ``virtflow replay`` print: text for people by default, cliff's formatters when asked for data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from virtflow.cli.command import Formatters, ShowOne
from virtflow.cli.replay_source import add_recording

if TYPE_CHECKING:
    from virtflow.replay.look.lines import Branch

TEXT = "text"


class Text:
    """The formatter of a screen: prints the text that the command has left for it."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """It has no options."""

    def emit_one(self, column_names: Any, data: Any, stdout: TextIO, parsed_args: argparse.Namespace) -> None:  # noqa: ARG002
        print_branch(parsed_args.screen, stdout)


class Screen(ShowOne):
    """A command that shows one thing: a screen of text, or (``-f json``) the same as data."""

    @property
    def formatter_default(self) -> str:
        return TEXT

    def _load_formatter_plugins(self) -> Any:
        formatters = Formatters()
        formatters._entries[TEXT] = Formatters.Entry(TEXT, Text())
        return formatters

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        return parser

    def show(
        self, parsed_args: argparse.Namespace, screen: Branch, plain: dict[str, Any]
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """What ``take_action`` returns."""
        parsed_args.screen = screen
        return tuple(plain), tuple(plain.values())


def print_branch(branch: Branch, out: TextIO) -> None:
    """As a tree in colours on a terminal that wants them, indented plain text anywhere else."""
    if not colourful(out):
        out.write("".join(f"{text}\n" for text in branch.plain()))
        return
    from rich.console import Console
    from rich.text import Text as RichText
    from rich.tree import Tree

    def grown(branch: Branch, tree: Tree) -> Tree:
        for child in branch.children:
            grown(child, tree.add(RichText.assemble(*child.spans)))
        return tree

    console = Console(file=out, highlight=False, soft_wrap=True)
    console.print(grown(branch, Tree(RichText.assemble(*branch.spans), guide_style="dim")))


def colourful(out: TextIO) -> bool:
    """Whether the output is a terminal whose owner has not said NO_COLOR."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
