"""The configuration: typed options (``options``), how they are read (``load``), and the sample file (``sample``).

Importing this package reads nothing and does not import oslo.config; ``load`` and ``sample`` do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from virtflow.config.options import Config

__all__ = ["Config", "load", "sample"]


def load(
    config_files: Iterable[str | os.PathLike[str]] = (),
    *,
    config_dirs: Iterable[str | os.PathLike[str]] = (),
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """See ``virtflow.config.loading.load``."""
    from virtflow.config import loading

    return loading.load(config_files, config_dirs=config_dirs, env=env, overrides=overrides)


def sample() -> str:
    """See ``virtflow.config.sample_file.sample_file``."""
    from virtflow.config.sample_file import sample_file

    return sample_file()
