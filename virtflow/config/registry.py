"""The options as oslo.config knows them, derived from the dataclasses of ``virtflow.config.options``."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from oslo_config import cfg

from virtflow.config.options import Config
from virtflow.config.spec import DEFAULT_GROUP, Spec


@dataclass(frozen=True)
class Option:
    """One option: where it stands, what it accepts, and the Python type of its value."""

    group: str
    name: str
    spec: Spec
    type: type
    optional: bool


@functools.cache
def groups() -> dict[str, type]:
    """The dataclass of every group but [DEFAULT], by name, in the order of the sample file."""
    hints = typing.get_type_hints(Config)
    return {f.name: hints[f.name] for f in fields(Config) if f.name not in _SCALARS and "option" not in f.metadata}


_SCALARS = ("sources", "warnings")


@functools.cache
def options() -> tuple[Option, ...]:
    """All options, [DEFAULT] first."""
    return tuple(
        found for group, cls in {DEFAULT_GROUP: Config, **groups()}.items() for found in _options_of(group, cls)
    )


def _options_of(group: str, cls: Any) -> Iterator[Option]:
    hints = typing.get_type_hints(cls)
    for item in fields(cls):
        if "option" not in item.metadata:
            continue
        hint = hints[item.name]
        optional = isinstance(hint, types.UnionType)
        if optional:
            (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        base = typing.get_origin(hint) or hint
        yield Option(group, item.name, item.metadata["option"], base, optional)


def oslo_option(option: Option) -> cfg.Opt:
    """The oslo.config option with the same type, default, bounds and help."""
    spec = option.spec
    common = {"help": spec.help, "secret": spec.secret, "default": spec.default, "sample_default": spec.shown_default}
    if option.type is bool:
        return cfg.BoolOpt(option.name, **common)
    if option.type is int:
        return cfg.IntOpt(option.name, min=_whole(spec.low), max=_whole(spec.high), **common)
    if option.type is float:
        return cfg.FloatOpt(option.name, min=spec.low, max=spec.high, **common)
    if option.type is tuple:
        return cfg.ListOpt(option.name, **{**common, "default": list(spec.default)})
    if option.type is Path:
        return cfg.StrOpt(option.name, max_length=4096, **common)
    return cfg.StrOpt(option.name, choices=spec.choices, **common)


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """All options by group, as ``oslo-config-generator`` and ``oslo-config-validator`` ask for them."""
    found: dict[str, list[cfg.Opt]] = {}
    for option in options():
        found.setdefault(option.group, []).append(oslo_option(option))
    return list(found.items())
