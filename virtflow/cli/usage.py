"""Mistakes in the command line itself, told in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from virtflow.errors import VirtflowError


class UsageError(VirtflowError):
    """The arguments do not make a command."""

    template = "{reason}"
    exit_code = 2
    retry_elsewhere = False


class ArgumentParser(argparse.ArgumentParser):
    """argparse that never abbreviates (new options would change what scripts mean) and raises UsageError."""

    def __init__(self, **arguments: object) -> None:
        arguments.setdefault("allow_abbrev", False)
        arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**arguments)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Instead of argparse's usage dump and exit."""
        help_command = f"{self.prog.split()[0]} help {' '.join(self.prog.split()[1:])}".strip()
        raise UsageError(reason=f"{message} (see `{help_command}`)")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from ``low`` to ``high``, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError("must be a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}")
        return value

    return parse


def seconds(text: str) -> float:
    """An argparse type: a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**9:
        raise argparse.ArgumentTypeError("must be a positive number of seconds")
    return value


def moment(text: str) -> int:
    """An argparse type: so long ago (90s, 15m, 2h, 7d), or a date with or without a time, which is UTC where it does
    not say; in microseconds since the epoch."""
    import re
    from datetime import UTC, datetime

    if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
        seconds_each = {"s": 1, "m": 60, "h": 3600, "d": 86400}[ago[2]]
        return int((datetime.now(UTC).timestamp() - int(ago[1]) * seconds_each) * 1_000_000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(reason=f"{text[:40]!r}: must be like 90s, 15m, 2h, 7d or 2026-01-31T12:00") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def key_value(text: str) -> tuple[str, str]:
    """An argparse type: KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError("must be KEY=VALUE")
    return key, value
