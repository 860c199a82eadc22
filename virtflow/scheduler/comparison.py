"""Comparing what a host has with what a flavor's property says."""

from __future__ import annotations

import operator
import re
from typing import Any

_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_WANTED = re.compile(r"\s*(>=|<=|!=|=|>|<)?\s*(.*)", re.DOTALL)


def differs(found: Any, wanted: str) -> bool:
    """Whether ``found`` is not what ``wanted`` says. Of a list, one entry has to be it (``!=``: none may)."""
    match = _WANTED.fullmatch(wanted)
    assert match is not None  # it matches every text
    symbol, value = match[1] or "=", match[2]
    entries = found if isinstance(found, list | tuple) else [found]
    if symbol == "!=":
        return any(_plain(entry) == value for entry in entries)
    return not any(_holds(symbol, _plain(entry), value) for entry in entries)


def _plain(entry: Any) -> str:
    return str(entry).lower() if isinstance(entry, bool) else str(entry)


def _holds(symbol: str, left: str, right: str) -> bool:
    """Numbers and versions (1.10 is after 1.9) compare as such; of other texts only equality means anything."""
    ours, theirs = _version(left), _version(right)
    if ours is not None and theirs is not None:
        return bool(_OPERATORS[symbol](ours, theirs))
    return symbol == "=" and left == right


def _version(text: str) -> tuple[int, ...] | None:
    return tuple(map(int, text.split("."))) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})*", text) else None
