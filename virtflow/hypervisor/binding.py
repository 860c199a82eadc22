"""The ``libvirt`` module, imported so that it keeps quiet. Everybody in this package takes it from here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["libvirt"]

_LOG_OUTPUTS = "LIBVIRT_LOG_OUTPUTS"


@contextlib.contextmanager
def _without_a_log() -> Iterator[None]:
    """libvirt reads its log settings once, when it is first imported, and logs to stderr unless told otherwise.

    What goes wrong also reaches us as an error, so the log goes nowhere; who wants it sets LIBVIRT_LOG_OUTPUTS.
    """
    if _LOG_OUTPUTS in os.environ:
        yield
        return
    os.environ[_LOG_OUTPUTS] = "4:file:/dev/null"
    try:
        yield
    finally:
        del os.environ[_LOG_OUTPUTS]


def _ignore(_context: object, _error: object) -> None:
    """libvirt's own handler prints every error to stderr, also those that are caught."""


with _without_a_log():
    import libvirt

libvirt.registerErrorHandler(_ignore, None)
