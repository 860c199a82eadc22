"""Files that the user names: read whole, never more than a limit, with one clear line when that fails."""

from __future__ import annotations

import os

from virtflow.errors import InvalidRequest
from virtflow.requests.problems import printable

REQUEST_FILE_LIMIT = 4 * 2**20
"""Bytes of a request file: room for the injected files in base64."""


def read_request_file(path: str | os.PathLike[str]) -> object:
    """The data of a YAML or JSON file, unchecked. Raises InvalidRequest when it cannot be read or parsed."""
    import yaml

    data = read_input(path, "request file", REQUEST_FILE_LIMIT)
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InvalidRequest(field="request file", reason=f"{_short(path)}: is not YAML or JSON{where}") from error


def read_input(path: str | os.PathLike[str], field: str, limit: int) -> bytes:
    """The content of a file that the user named, at most ``limit`` bytes. Raises InvalidRequest for ``field``."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise InvalidRequest(field=field, reason=f"cannot read {_short(path)}: {reason}") from error
    if len(data) > limit:
        raise InvalidRequest(field=field, reason=f"{_short(path)} is larger than {limit} bytes")
    return data


def _short(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return printable(text if len(text) <= 200 else "..." + text[-200:])
