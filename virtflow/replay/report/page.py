"""Puts the view of a recording into one HTML file that loads nothing, and may run nothing but what it carries."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import uuid
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from virtflow.errors import AlreadyExists
from virtflow.files.durable import publish, storage_errors
from virtflow.replay.recording import Recording
from virtflow.replay.report.view import view

SIZE = 2_000_000
"""Bytes that a page should not be larger than: it is mailed."""
TEXT_LIMITS = (60_000, 12_000, 3_000, 800, 200)
"""Characters at which texts are cut, the largest first; the next is tried where the page becomes too large."""

SCRIPTS = (
    *("elements.js", "moment.js", "graph.js", "timeline.js", "events.js", "documents.js", "task.js"),
    "report.js",
)
_UNSEEN = re.compile("[\\u0000-\\u001f\\u007f-\\u009f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff]")
"""The scripts show these as their code, too: they would hide or reorder what stands around them."""
_HOLE = re.compile(r"\{\{(\w+)\}\}")


def page(recording: Recording, other: Recording | None = None) -> str:
    """The HTML. It shows what the recording holds: whether that is redacted is the caller's business.

    ``other``: an operation whose XML this one's is compared with.
    """
    text = ""
    for limit in TEXT_LIMITS:
        text = render(view(recording, limit, other))
        if len(text) <= SIZE:
            break
    return text


def write(recording: Recording, path: Path, other: Recording | None = None, *, replace_existing: bool = False) -> int:
    """Write the page, for its owner alone to read; returns its size in bytes.

    Raises AlreadyExists, HostStorageError.
    """
    if not replace_existing and path.exists():
        raise AlreadyExists(kind="file", name=str(path))
    content = page(recording, other).encode()
    staged = path.with_name(f"{path.name}.tmp.{uuid.uuid4()}")
    with storage_errors("write", path):
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            publish(staged, path, 0o600)
        finally:
            staged.unlink(missing_ok=True)
    return len(content)


def render(model: Mapping[str, Any]) -> str:
    """The template with a view model."""
    style, script = _shipped("report.css"), "\n".join(_shipped(name) for name in SCRIPTS)
    parts = {
        "title": html.escape(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", model["title"])),
        "style": style,
        "script": script,
        "data": embedded(model),
        "policy": html.escape(policy(style, script)),
    }
    return _HOLE.sub(lambda hole: parts[hole[1]], _shipped("report.html"))


def embedded(model: Mapping[str, Any]) -> str:
    """JSON that no HTML parser takes for anything else: only ASCII, and no ``<``, ``>`` or ``&``."""
    text = json.dumps(model, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style and this script, no other, no requests, no text that becomes markup."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_source(script)}",
            f"style-src {_source(style)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shipped(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
