"""Text about the options: the commented sample file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from virtflow.config.registry import Option, options
from virtflow.config.spec import Spec


def sample_file() -> str:
    """A configuration file with every option commented out at its default."""
    lines: list[str] = []
    group = None
    for option in options():
        if option.group != group:
            group = option.group
            lines += [f"[{group}]", ""]
        lines += [*_about(option), f"#{option.name} = {_shown(option.spec)}", ""]
    return "\n".join(lines)


def _about(option: Option) -> Iterator[str]:
    for line in textwrap.wrap(option.spec.help, 98):
        yield f"# {line}"
    facts = [_TYPES[option.type.__name__]]
    if option.spec.choices:
        facts = ["one of " + ", ".join(option.spec.choices)]
    if option.spec.low is not None and option.spec.high is not None:
        facts.append(f"{option.spec.low:.15g} to {option.spec.high:.15g}")
    yield f"# ({', '.join(facts)})"


_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Path": "path",
    "tuple": "list, separated by commas",
}


def _shown(spec: Spec) -> Any:
    if spec.shown_default is not None:
        return f"<{spec.shown_default}>"
    if spec.default is None:
        return "<unset>"
    if isinstance(spec.default, bool):
        return str(spec.default).lower()
    return ",".join(spec.default) if isinstance(spec.default, tuple) else spec.default
