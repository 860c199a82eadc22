"""The drivers that need nothing: virtflow's own log, and a file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = logging.getLogger("virtflow.notifications")


class LogDriver:
    """One line of JSON in the log, at level INFO: whoever asked for what failed is told so anyway."""

    def __init__(self, _settings: Mapping[str, Any]) -> None:
        """It needs none."""

    def send(self, document: Mapping[str, Any]) -> None:
        """Log it."""
        if LOG.isEnabledFor(logging.INFO):
            LOG.info("%s", json.dumps(document, separators=(",", ":")))


class FileDriver:
    """One line of JSON in a file that only its owner can read. ``settings["file"]`` is its path."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._path = Path(settings["file"])

    def send(self, document: Mapping[str, Any]) -> None:
        """Append it with one write, so that lines of several processes do not mix. OSError."""
        line = json.dumps(document, separators=(",", ":")) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
