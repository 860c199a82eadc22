"""The ``virtflow`` program: global options, the way to a command, and what becomes of its errors."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, TextIO

from cliff.app import App

import virtflow
from virtflow import faults
from virtflow.cli.commands import CommandTable
from virtflow.cli.context import Context, setting
from virtflow.cli.usage import ArgumentParser, UsageError
from virtflow.errors import VirtflowError
from virtflow.redaction import scrub

DETACHED = 130
BROKEN_PIPE = 141
_LONGEST = 2000


class Virtflow(App):
    """The application: parses the global options, runs one command, returns the exit code."""

    NAME = "virtflow"

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        super().__init__("Virtual machines as operations that can be undone.", virtflow.__version__, CommandTable())
        self._set_streams(None, stdout, stderr)
        self.context: Context
        self.command_manager: CommandTable

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        """The global options, which stand before the command."""
        parser = ArgumentParser(prog=self.NAME, description=description, add_help=False, **argparse_kwargs or {})
        option = parser.add_argument
        option("-h", "--help", action="store_true", help="show this help, or a command's, and exit")
        option("--version", action="version", version=f"{self.NAME} {version}")
        option("-v", "--verbose", action="count", default=0, help="show more on stderr")
        option("--debug", action="store_true", help="show debug messages and tracebacks")
        option(
            "--config-file",
            action="append",
            default=[],
            metavar="FILE",
            help="read this file instead of the usual ones",
        )
        option(
            "--config-dir",
            action="append",
            default=[],
            metavar="DIR",
            help="read the *.conf files of this directory as well",
        )
        option("--state-dir", metavar="DIR", help="where everything is kept ([DEFAULT] state_dir)")
        option("--log-file", metavar="FILE", help="append log messages to this file")
        option("--set", action="append", default=[], type=setting, metavar="GROUP.OPTION=VALUE", help="set any option")
        option("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        return parser

    def run(self, argv: list[str]) -> int:
        """Run the command that the arguments name and return the exit code; nothing is ever raised."""
        self.options = argparse.Namespace(debug="--debug" in argv)
        try:
            code = self._run(argv)
            self.stdout.flush()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
        except BrokenPipeError:
            # Whoever read our output has gone; the interpreter must not complain of it at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except KeyboardInterrupt:
            return DETACHED
        except Exception as error:  # noqa: BLE001 - the last line of defence: one line, no traceback
            return self._report(error)
        return code

    def _run(self, argv: list[str]) -> int:
        if "VIRTFLOW_FAULT" in os.environ:
            faults.read_environment()
        self.options = self.parser.parse_args(argv)
        words = self.options.command
        if not words:
            self.show_help(self.stdout if self.options.help else self.stderr)
            return 0 if self.options.help else 2
        if self.options.help:
            words = ["help", *words]
        cls, name, arguments = self.command_manager.find_command(words)
        self.context = Context(self.options, self.stderr)
        try:
            command = cls(self, self.options, cmd_name=name)
            parsed = command.get_parser(f"{self.NAME} {name}").parse_args(arguments)
            self.options.debug = self.options.debug or getattr(parsed, "debug", False)
            try:
                code: int = command.run(parsed)
            except ValueError as error:
                raise _column_error(error) from error
            return code
        finally:
            self.context.close()

    def show_help(self, out: TextIO) -> None:
        """The global options and all commands with the first line of their help."""
        self.parser.print_help(out)
        out.write("\ncommands:\n")
        for name, entry in sorted(self.command_manager):
            first = (entry.load().__doc__ or "").strip().split("\n")[0].split(". ")[0].rstrip(".")
            out.write(f"  {name:<23} {first}\n")

    def _report(self, error: Exception) -> int:
        if self.options.debug:
            import traceback

            self.stderr.write(scrub("".join(traceback.format_exception(error))))
        if isinstance(error, VirtflowError):
            self.complain(str(error))
            return error.exit_code
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self.complain(f"internal error: {what} (run again with --debug to see where)")
        return 1

    def complain(self, message: str) -> None:
        """One line on stderr: no line breaks, no control characters, no known secret, no end."""
        text = "".join(c if c.isprintable() else " " for c in scrub(message))
        self.stderr.write(f"virtflow: error: {' '.join(text.split())[:_LONGEST]}\n")


def _column_error(error: ValueError) -> Exception:
    """cliff raises a ValueError for a column that does not exist; any other is a bug of ours."""
    return UsageError(reason=str(error).rstrip(".")) if str(error).startswith("No recognized column") else error


def main(argv: list[str] | None = None) -> int:
    """Entry point of the ``virtflow`` program."""
    # Directories that can be passed through but not listed, files for their owner alone; what others may read says so.
    os.umask(0o066)
    return Virtflow().run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
