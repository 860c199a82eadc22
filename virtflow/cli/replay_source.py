"""Which recording a command of ``virtflow replay`` is about: an operation, or an exported file (then no database)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.cli.usage import UsageError

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.replay.recording import Recording

_FEW = 5


def add_recording(parser: argparse.ArgumentParser) -> None:
    """The arguments that name an operation or an exported file."""
    help_text = "number, id or its beginning, or the path of an exported file"
    parser.add_argument("recording", nargs="?", metavar="ID|FILE", help=help_text)
    parser.add_argument("--last", action="store_true", help="the latest operation")
    parser.add_argument("--file", metavar="FILE", help="an exported file; no database is opened")


def reference_of(parsed_args: argparse.Namespace) -> str | Path:
    """What the arguments name: an operation, or (a Path) a file. UsageError unless it is one of them."""
    given = [parsed_args.recording is not None, parsed_args.last, parsed_args.file is not None]
    if sum(given) != 1:
        raise UsageError(reason="give one of: the ID of an operation, a file, --last")
    if parsed_args.file is not None:
        return Path(parsed_args.file)
    if parsed_args.last:
        return "--last"
    return as_reference(str(parsed_args.recording))


def as_reference(text: str) -> str | Path:
    """A file where there is one of that name, or where it can be nothing else."""
    path = Path(text)
    return path if path.is_file() or "/" in text or path.suffix else text


def find_recording(context: Context, parsed_args: argparse.Namespace) -> Recording:
    """The recording that the arguments name. UsageError, NotFound, BadRecording."""
    return recording_of(context, reference_of(parsed_args))


def is_live(parsed_args: argparse.Namespace, recording: Recording) -> bool:
    """Whether it is of this database, so that this host can be asked; what was exported is always redacted."""
    return not isinstance(reference_of(parsed_args), Path) and not recording.redacted


def recording_of(context: Context, reference: str | Path) -> Recording:
    """From an exported file, from the database, or (an id that is not in it) from what was imported."""
    from virtflow.errors import NotFound

    if isinstance(reference, Path):
        from virtflow.replay.files import load

        return load(reference)
    from virtflow.replay.reading import read

    try:
        return read(context.database, reference)
    except NotFound:
        imported = _imported(context, reference)
        if imported is None:
            _complain_of_several(context, reference)
            raise
        return imported


def recordings_directory(context: Context) -> Path:
    """Where imported recordings are kept."""
    return Path(context.config.state_dir) / "recordings"


def _imported(context: Context, reference: str) -> Recording | None:
    from virtflow.replay.files import SUFFIX, load

    if len(reference) < 4 or not reference.replace("-", "").isalnum():
        return None
    found = sorted(recordings_directory(context).glob(f"{reference}*{SUFFIX}"))
    return load(found[0]) if len(found) == 1 else None


def _complain_of_several(context: Context, reference: str) -> None:
    """The beginning of an id that several operations have is a mistake of another kind than one that none has."""
    from virtflow.replay.reading import beginning_with

    found = beginning_with(context.database, reference, _FEW) if len(reference) >= 4 else []
    if len(found) > 1:
        listed = ", ".join(f"{number} ({kind}, {identity[:13]})" for number, kind, identity in found)
        raise UsageError(reason=f"{reference!r} is the beginning of several operations' ids: {listed}")
