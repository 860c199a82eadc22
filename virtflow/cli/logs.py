"""Where log records go: to the log file if there is one, else to stderr, where nobody wants to see much."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TextIO

from virtflow.errors import ConfigurationError
from virtflow.log_context import ContextFilter
from virtflow.redaction import RedactingFilter

if TYPE_CHECKING:
    from virtflow.config import Config

_FILE_FORMAT = "%(asctime)s %(levelname)s [%(process)d %(threadName)s] [%(about)s] %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """Records for a person: no traceback, no line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        return f"virtflow: {record.levelname.lower()}: {' '.join(record.getMessage().split())}"


def configure_logging(config: Config, verbose: int, stderr: TextIO) -> None:
    """Set up the root logger. ``verbose`` is how often -v was given; --debug shows everything, with tracebacks."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(getattr(old, "formatter", None), OneLine) or old.get_name() == "virtflow":
            root.removeHandler(old)
            old.close()
    root.setLevel(logging.DEBUG if config.debug else logging.INFO)
    console = logging.StreamHandler(stderr)
    console.setFormatter(logging.Formatter(_FILE_FORMAT) if config.debug else OneLine())
    console.setLevel(logging.DEBUG if config.debug else logging.INFO if verbose else logging.CRITICAL)
    _install(root, console)
    if config.log_file is not None:
        try:
            handler = logging.FileHandler(config.log_file, encoding="utf-8")
        except OSError as error:
            reason = f"cannot write {config.log_file}: {error.strerror}"
            raise ConfigurationError(group="DEFAULT", option="log_file", reason=reason) from error
        handler.setFormatter(logging.Formatter(_FILE_FORMAT))
        _install(root, handler)


def log_as_a_service() -> None:
    """Whole records on stderr, for the journal of whoever started a daemon."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler.formatter, OneLine):
            handler.setFormatter(logging.Formatter(_FILE_FORMAT))
            handler.setLevel(root.level)


def _install(root: logging.Logger, handler: logging.Handler) -> None:
    handler.set_name("virtflow")
    handler.addFilter(RedactingFilter())
    handler.addFilter(ContextFilter())
    root.addHandler(handler)
