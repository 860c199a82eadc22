"""``virtflow help``."""

from __future__ import annotations

import argparse

from virtflow.cli.command import Command


class Help(Command):
    """Show the help of a command, or the list of all commands."""

    examples = ("virtflow help", "virtflow help operation show")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("words", nargs="*", metavar="COMMAND", help="a command, or the beginning of several")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        words = [word for word in parsed_args.words if not word.startswith("-")]
        if not words:
            self.app.show_help(self.app.stdout)
            return 0
        table = self.app.command_manager
        if words == parsed_args.words[:1] and f"{words[0]}" not in table.commands and table.group(words):
            for name in table.group(words):
                self.app.stdout.write(f"  virtflow {name}\n")
            return 0
        cls, name, _ = table.find_command(words)
        cls(self.app, self.app_args, cmd_name=name).get_parser(f"virtflow {name}").print_help(self.app.stdout)
        return 0
