"""What is said of one option: its type is its field's, the rest stands here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEFAULT_GROUP = "DEFAULT"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"


@dataclass(frozen=True)
class Spec:
    """What an option accepts. ``low`` and ``high`` are inclusive; ``pattern`` must match the whole text."""

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    pattern: str | None = None
    wanted: str = "a name"
    """What a text should look like that ``pattern`` refuses."""
    secret: bool = False
    credentials: bool = False
    """The value is a URL that may carry a password; the rest of it may be shown."""
    shown_default: str | None = None
    """What the sample file prints where the default depends on the machine."""


def option(default: Any, help: str, **bounds: Any) -> Any:  # noqa: A002
    """A dataclass field that is an option; ``bounds`` are the other fields of ``Spec``."""
    spec = Spec(default, help, **bounds)
    return field(metadata={"option": spec}, repr=not (spec.secret or spec.credentials))
