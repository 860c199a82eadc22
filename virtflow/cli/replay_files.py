"""``virtflow replay export|import|verify``: recordings that leave the house, and those that come in."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import ShowOne
from virtflow.cli.replay_source import add_recording, find_recording, is_live, recordings_directory
from virtflow.errors import BadRecording

if TYPE_CHECKING:
    from virtflow.replay.files import Header
    from virtflow.replay.recording import Recording

Output = tuple[tuple[str, ...], Iterable[Any]]


class Export(ShowOne):
    """Write an operation to a file that can be mailed: everything recorded, without secrets.

    Whatever looks like a secret is masked, and so are the operation's own secrets, wherever they turn up. The file can
    be looked at anywhere: virtflow replay show FILE.
    """

    examples = (
        "virtflow replay export 12 -o spawn-12.vfrec",
        "virtflow replay export --last -o /tmp/failed.vfrec --force",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file to write")
        parser.add_argument("--force", action="store_true", help="replace a file that is there")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.replay.files import export
        from virtflow.replay.redacting import redact, secrets_of

        recording = find_recording(self.context, parsed_args)
        secrets: list[bytes] = []
        if is_live(parsed_args, recording):
            secrets = secrets_of(recording, self.context.database, Path(self.context.config.secrets.key_file))
        redacted = redact(recording, secrets)
        return _described(
            Path(parsed_args.output),
            redacted,
            export(redacted, Path(parsed_args.output), replace_existing=parsed_args.force),
        )


class Import(ShowOne):
    """Keep a recording from elsewhere, so that it can be looked at by its id: virtflow replay show ID.

    It is checked, copied to recordings/ in the state directory, and never becomes an operation: nothing can be run,
    resumed or undone from it.
    """

    examples = ("virtflow replay import spawn-12.vfrec",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="an exported recording")
        parser.add_argument("--force", action="store_true", help="replace one of the same operation")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.files.durable import storage_errors
        from virtflow.replay.files import SUFFIX, export, load
        from virtflow.replay.redacting import redact

        recording = redact(load(Path(parsed_args.file)))
        identity = recording.operation.id
        if not identity.replace("-", "").isalnum() or not identity.isascii() or len(identity) > 64:
            raise BadRecording(source=parsed_args.file, reason="the id of its operation is none")
        directory = recordings_directory(self.context)
        with storage_errors("make", directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{identity}{SUFFIX}"
        return _described(path, recording, export(recording, path, replace_existing=parsed_args.force))


class Verify(ShowOne):
    """Check a recording: that it is one, that it is whole, and that it fits together. Exit code 2 when it does not."""

    examples = ("virtflow replay verify spawn-12.vfrec",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="an exported recording")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.replay.consistency import problems
        from virtflow.replay.files import load, open_recording

        path = Path(parsed_args.file)
        recording = load(path, consistent=False)
        found = problems(recording)
        if found:
            more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
            raise BadRecording(source=path, reason=f"it does not fit together: {'; '.join(found[:5])}{more}")
        return _described(path, recording, open_recording(path)[0])


def _described(path: Path, recording: Recording, header: Header) -> Output:
    operation = recording.operation
    plain = {
        "file": str(path),
        "operation": operation.id,
        "number": operation.number,
        "kind": operation.kind,
        "target": operation.target,
        "outcome": operation.outcome or operation.state,
        "virtflow_version": recording.virtflow_version,
        "format": recording.format,
        "flows": len(recording.flows),
        "events": len(recording.events),
        "redacted": recording.redacted,
        "sha256": header.sha256,
    }
    return tuple(plain), tuple(plain.values())
