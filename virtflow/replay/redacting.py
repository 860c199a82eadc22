"""Masks what must not leave the house before a recording is exported.

Secrets are not in the store in the first place: it holds references. But a request may carry a password where nobody
expects one, and a program may quote its input in an error. So three nets, one behind the other: values whose key says
what they are, texts that look like credentials, and the very values of the operation's secrets that are still known.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from virtflow.errors import SecretUnreadable
from virtflow.persistence.database import Database
from virtflow.redaction import MASK, scrub
from virtflow.replay.recording import Recording, from_plain, to_plain

_SENSITIVE = re.compile(
    r"(^|[_\-.])(pass(word|wd|phrase)?|secrets?|tokens?|credentials?|private[_\-]?key|api[_\-]?key|access[_\-]?key|"
    r"admin[_\-]?pass(word)?|user[_\-]?data|cookie|authorization)$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"secret:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARKER = "secret"
SECRET_FIELDS = frozenset({"admin_password", "user_data", "files", "ssh_keys"})
"""What stands in a request in place of a secret is its field: ``{"secret": "user_data"}``."""
_GRAPH = "graph"
_PARTS_OF_A_GRAPH = {"nodes", "edges", "recorded"}
_PATTERNS = (
    (re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"([a-z][a-z0-9+.\-]{1,20}://[^\s/:@]{0,256}:)[^\s/@]{1,256}@", re.IGNORECASE), rf"\1{MASK}@"),
    (
        re.compile(
            r"(\b(?:[a-z0-9]+[_\-])?(?:password|passwd|passphrase|secret|token|api[_\-]?key)\b['\"]?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&'\"]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(<(?:[\w:]*password|[\w:]*passphrase)\b[^>]*>)[^<]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(\bauthorization:\s*(?:basic|bearer)\s+)\S+", re.IGNORECASE), rf"\1{MASK}"),
)
_SHORTEST = 4


def redact(recording: Recording, secrets: Iterable[bytes] = ()) -> Recording:
    """The recording with everything masked that is, or looks like, a secret. ``secrets`` are values that are known."""
    known = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
    plain = {**to_plain(recording), "redacted": True}
    return replace(from_plain(_masked(plain, known)), redacted=True)


def secrets_of(recording: Recording, database: Database, key_file: Path) -> list[bytes]:
    """The secrets that the operation has, or refers to, as far as they are not purged and can be read here."""
    from virtflow.persistence.models.inventory import secrets as table
    from virtflow.persistence.secrets import SecretStore, load_or_create_key

    if not key_file.exists():
        return []
    refs = set(_REFERENCE.findall(json.dumps(to_plain(recording))))
    with database.connect() as connection:
        own = sa.select(table.c.ref).where(table.c.owner == recording.operation.id)
        refs.update(connection.execute(own).scalars())
    store = SecretStore(database, load_or_create_key(key_file))
    found = []
    for ref in sorted(refs):
        with suppress(SecretUnreadable):  # purged meanwhile, or not ours to read: the other nets remain
            found.append(store.get(ref))
    return found


def _masked(value: Any, known: list[str], key: str = "", *, names: bool = False) -> Any:
    """``names``: the keys are names of values, as a graph has them, and say nothing of what stands beside them."""
    if isinstance(value, Mapping):
        return {
            _text(name, known): _masked(entry, known, name, names=names or _is_graph(name, entry))
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_masked(entry, known, key, names=names) for entry in value]
    sensitive = not names and _SENSITIVE.search(key) is not None
    if isinstance(value, str):
        if _REFERENCE.fullmatch(value) or (key == _MARKER and value in SECRET_FIELDS):
            return value
        return MASK if sensitive and value else _text(value, known)
    return MASK if sensitive and isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_graph(name: str, value: Any) -> bool:
    return name == _GRAPH and isinstance(value, Mapping) and {"nodes", "edges"} <= set(value) <= _PARTS_OF_A_GRAPH


def _text(text: str, known: list[str]) -> str:
    for form in known:
        if form in text:
            text = text.replace(form, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return scrub(text)


def _forms(secret: bytes) -> Iterator[str]:
    """How a value may turn up in a text: as it is, line by line, quoted for JSON, Python, URLs, or in base64."""
    text = secret.decode("utf-8", "replace")
    for part in {text, text.strip(), *_lines(text), *_leaves(text)}:
        if len(part) < _SHORTEST:
            continue
        encoded = base64.b64encode(part.encode()).decode()
        yield from (part, json.dumps(part)[1:-1], repr(part)[1:-1], quote(part, safe=""), encoded, encoded.rstrip("="))


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if len(line.strip()) >= 8)


def _leaves(text: str) -> Iterator[str]:
    """The contents of injected files: a JSON list of path and base64."""
    try:
        entries = json.loads(text)
    except ValueError:
        return
    for entry in entries if isinstance(entries, list) else ():
        content = entry.get("content") if isinstance(entry, Mapping) else None
        if isinstance(content, str):
            yield content
            try:
                decoded = base64.b64decode(content, validate=True).decode("utf-8", "replace")
            except ValueError:
                continue
            yield from (decoded, decoded.strip(), *_lines(decoded))
