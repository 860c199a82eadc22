"""What commands work on: configuration, database, runner. Each is opened when a command first asks for it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from virtflow.cli.usage import UsageError

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.runner import Runner
    from virtflow.persistence.database import Database


class Context:
    """``options`` are the global options of the command line; ``stderr`` takes warnings and progress."""

    def __init__(self, options: argparse.Namespace, stderr: TextIO | None = None) -> None:
        self.options = options
        self.stderr = stderr or sys.stderr

    @cached_property
    def config(self) -> Config:
        """The configuration; what it warns of goes to stderr."""
        from virtflow.cli.logs import configure_logging
        from virtflow.config import load

        config = load(self.options.config_file, config_dirs=self.options.config_dir, overrides=self._overrides())
        configure_logging(config, self.options.verbose, self.stderr)
        for warning in config.warnings:
            self.stderr.write(f"virtflow: warning: {warning}\n")
        return config

    def _overrides(self) -> dict[str, Any]:
        overrides = dict(self.options.set)
        for name in ("state_dir", "log_file"):
            value = getattr(self.options, name)
            if value is not None:
                overrides[name] = os.path.abspath(value).replace("$", "$$")
        if self.options.debug:
            overrides["debug"] = True
        return overrides

    @cached_property
    def database(self) -> Database:
        """The database, at today's schema: an SQLite file is made and upgraded on the way, others are checked."""
        from virtflow.persistence import schema
        from virtflow.persistence.database import Database

        database = Database(self.config.database.url, busy_timeout=self.config.database.busy_timeout)
        try:
            schema.ensure(database)
        except BaseException:
            database.close()
            raise
        return database

    def runner(self, on_event: Callable[[Any], None] | None = None) -> Runner:
        """A runner in this process, to be used as a context manager. With workers, what it submits goes to them."""
        _ = self.database
        if self.has_workers:
            from virtflow.worker.connecting import connect

            return connect(self.config, on_event=on_event)[0]
        from virtflow.engine.runner import Runner

        return Runner.from_config(self.config, on_event=on_event)

    @property
    def has_workers(self) -> bool:
        """Whether operations are left to workers."""
        return self.config.engine.mode == "workers"

    def global_arguments(self) -> list[str]:
        """The global options, as arguments for another virtflow process."""
        given = [("--config-file", path) for path in self.options.config_file]
        given += [("--config-dir", path) for path in self.options.config_dir]
        given += [(f"--{name.replace('_', '-')}", getattr(self.options, name)) for name in ("state_dir", "log_file")]
        arguments = [f"{name}={Path(value).absolute()}" for name, value in given if value is not None]
        return [*arguments, *(f"--set={key}={value}" for key, value in self.options.set)]

    def close(self) -> None:
        """Close what was opened."""
        if "database" in self.__dict__:
            self.database.close()


def setting(text: str) -> tuple[str, str]:
    """An argparse type: GROUP.OPTION=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(reason=f"--set {text[:80]!r}: must be GROUP.OPTION=VALUE")
    return key, value
