"""The board that the configuration names."""

from __future__ import annotations

import importlib
from typing import cast

from virtflow.config.options import Config
from virtflow.errors import ConfigurationError
from virtflow.persistence.database import Database
from virtflow.worker.boards.board import Board

_BOARDS = {
    "sql": "virtflow.worker.boards.sql",
    "zookeeper": "virtflow.worker.boards.zookeeper",
    "redis": "virtflow.worker.boards.redis",
    "etcd": "virtflow.worker.boards.etcd",
}
"""Each module has ``open_board(config, database)``; only the one that is used is imported."""


def open_board(config: Config, database: Database) -> Board:
    """The board of ``[jobboard] backend``. Nothing is connected before it is used.

    Raises ConfigurationError when it lacks its client library or its URL.
    """
    backend = config.jobboard.backend
    try:
        module = importlib.import_module(_BOARDS[backend])
    except ModuleNotFoundError as error:
        reason = f"{backend} needs the Python package {error.name}: pip install 'virtflow[{backend}]'"
        raise ConfigurationError(group="jobboard", option="backend", reason=reason) from error
    return cast(Board, module.open_board(config, database))
