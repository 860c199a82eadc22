"""TaskFlow without eventlet: import this before anything of TaskFlow.

oslo.utils and futurist import eventlet wherever it is installed (os-brick and oslo.messaging bring it along), only to
ask whether it has patched the threads. That takes half a second of every command and prints a farewell on stderr.
virtflow uses threads and never eventlet: they are told that there is none, unless the program has imported it already.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_EVENTLET = "eventlet"
_ASKING = ("oslo_utils.eventletutils", "futurist", "futurist.waiters")


@contextmanager
def without_eventlet() -> Iterator[None]:
    """What is imported inside finds no eventlet, unless the program has imported it already."""
    modules: dict[str, Any] = sys.modules
    if _EVENTLET in modules:
        yield
        return
    modules[_EVENTLET] = None  # the import system's own sign for "there is no such module"
    try:
        yield
    finally:
        del modules[_EVENTLET]


with without_eventlet(), warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of eventletutils itself
    for _name in _ASKING:
        import_module(_name)
