"""From pydantic's findings to one line that a person can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from virtflow.errors import InvalidRequest


def first_error(error: ValidationError) -> InvalidRequest:
    """The first of pydantic's findings, in one line, without the value."""
    found = error.errors(include_url=False, include_input=False)[0]
    field = ""
    for part in found["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{printable(part[:63])}" if field else printable(part[:63])
    return InvalidRequest(
        field=field.removesuffix(".[key]"), reason=_reason(found["type"], found["msg"], found.get("ctx", {}))
    )


def _reason(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind in _REASONS:
        return _REASONS[kind](context)
    message = message.removeprefix("Value error, ").removeprefix("Input should ")
    return printable(message.replace("be ", "must be ", 1) if message.startswith("be ") else message)


_REASONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is required",
    "extra_forbidden": lambda _: "is not a field of this request",
    "string_type": lambda _: "must be text (in YAML, put it in quotes)",
    "string_unicode": lambda _: "contains a lone surrogate (text that is not valid Unicode)",
    "string_too_short": lambda c: f"must have at least {c['min_length']} character(s)",
    "string_too_long": lambda c: f"must have at most {c['max_length']} characters",
    "bytes_type": lambda _: "must be base64 text",
    "int_type": lambda _: "must be a whole number",
    "bool_type": lambda _: "must be true or false",
    "list_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be a mapping",
    "model_type": lambda _: "must be a mapping",
    "greater_than_equal": lambda c: f"must be at least {c['ge']}",
    "less_than_equal": lambda c: f"must be at most {c['le']}",
    "too_long": lambda c: f"must have at most {c['max_length']} entries",
}


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
