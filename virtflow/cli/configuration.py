"""``virtflow config``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from virtflow.cli.command import Command, Lister, Plain
from virtflow.cli.requesting import Output
from virtflow.redaction import MASK


class ShowConfig(Lister):
    """Show the value of every option. Secrets are masked."""

    examples = ("virtflow config show", "virtflow config show --origin --group database -f yaml")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--origin", action="store_true", help="where each value comes from")
        parser.add_argument("--group", action="append", help="only this group; can be repeated")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.config.registry import options

        config = self.context.config
        rows = []
        for option in options():
            if parsed_args.group and option.group not in parsed_args.group:
                continue
            value = getattr(config if option.group == "DEFAULT" else getattr(config, option.group), option.name)
            if value is not None and option.spec.secret:
                value = MASK
            elif value is not None and option.spec.credentials:
                value = without_password(value)
            entry = [option.group, option.name, _shown(value)]
            rows.append([*entry, config.origins()[option.group, option.name]] if parsed_args.origin else entry)
        columns = ("group", "option", "value")
        return (*columns, "origin") if parsed_args.origin else columns, rows


class Sample(Command):
    """Print a configuration file with every option, explained, at its default."""

    examples = ("virtflow config sample",)

    def take_action(self, parsed_args: argparse.Namespace) -> None:  # noqa: ARG002
        from virtflow.config import sample

        self.app.stdout.write(sample())


def without_password(url: str) -> str:
    """A URL whose password, if it has one, is masked."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _password = credentials.partition(":")
    return f"{scheme}{separator}{user}:{MASK}{at}{place}" if at and colon else url


def _shown(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return Plain(list(value) if isinstance(value, tuple) else value)
