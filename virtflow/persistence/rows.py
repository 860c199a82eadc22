"""TaskFlow's details as rows and back.

Loading is where stock TaskFlow loses retries: its ``RetryDetail.from_dict`` puts each failed attempt's failure in the
place of the value that the retry had provided. Here values stay values.
"""

from __future__ import annotations

from typing import Any

from taskflow.persistence import models
from taskflow.types.failure import Failure

from virtflow.persistence.models.base import encode
from virtflow.redaction import scrub

ATOM_COLUMNS = ("version", "state", "intention", "meta", "results", "failure", "revert_results", "revert_failure")
AtomRow = tuple[str | None, ...]


def atom_row(detail: models.AtomDetail) -> AtomRow:
    """The changing columns of an atom, in the order of ATOM_COLUMNS, JSON encoded."""
    if type(detail) is models.TaskDetail:
        results = None if detail.results is None else encode(detail.results)
    else:
        results = _encode_attempts(detail.results)
    revert_results = detail.revert_results
    return (
        _version(detail.version),
        detail.state,
        detail.intention,
        encode(detail.meta) if detail.meta else None,
        results,
        encode_failure(detail.failure),
        None if revert_results is None else encode(revert_results),
        encode_failure(detail.revert_failure),
    )


def atom_kind(detail: models.AtomDetail) -> str:
    """TaskFlow's own word for the type of the detail."""
    return str(models.atom_detail_type(detail))


def atom_from_row(row: Any) -> models.AtomDetail:
    """An atom detail from a row of the ``atoms`` table (all columns, already decoded from JSON)."""
    detail = models.atom_detail_class(row.kind)(row.name, row.uuid)
    detail.version = row.version
    detail.state = row.state
    detail.intention = row.intention
    detail.meta = row.meta or {}
    detail.failure = decode_failure(row.failure)
    detail.revert_failure = decode_failure(row.revert_failure)
    detail.revert_results = row.revert_results
    detail.results = row.results if row.kind == "TASK_DETAIL" else _decode_attempts(row.results)
    return detail


def failure_dict(failure: Failure) -> dict[str, Any]:
    """The failure as plain data: names and texts, every known secret masked, arguments only where they are plain."""
    return {
        "exc_args": _plain_arguments(failure.exception_args),
        "exc_type_names": list(failure),
        "exception_str": scrub(failure.exception_str),
        "traceback_str": scrub(failure.traceback_str or ""),
        "causes": [failure_dict(cause) for cause in failure.causes],
        "version": Failure.DICT_VERSION,
    }


def _plain_arguments(arguments: tuple[Any, ...]) -> list[Any]:
    if not all(argument is None or isinstance(argument, str | int | bool) for argument in arguments):
        return []
    return [scrub(argument) if isinstance(argument, str) else argument for argument in arguments]


def encode_failure(failure: Failure | None) -> str | None:
    return None if failure is None else encode(failure_dict(failure))


def decode_failure(data: dict[str, Any] | None) -> Failure | None:
    return None if data is None else Failure.from_dict(data)


def _version(version: Any) -> str | None:
    if version is None or isinstance(version, str):
        return version
    return ".".join(map(str, version))


def _encode_attempts(attempts: list[tuple[Any, dict[str, Failure]]] | None) -> str:
    rows = [[value, {name: failure_dict(f) for name, f in failures.items()}] for value, failures in attempts or ()]
    return encode(rows)


def _decode_attempts(rows: list[Any] | None) -> list[tuple[Any, dict[str, Failure]]]:
    return [(value, {name: Failure.from_dict(f) for name, f in failures.items()}) for value, failures in rows or ()]
