"""``virtflow instance console``: what the guest has written to its serial port."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import BinaryIO

from virtflow.cli.command import Command
from virtflow.cli.usage import whole_number
from virtflow.errors import HostStorageError, NotFound

_CHUNK = 1 << 16
_POLL = 0.2


class Console(Command):
    """Print the console log of an instance.

    On a terminal, control characters are left out: the guest must not be able to reprogram it.
    """

    examples = ("virtflow instance console web1", "virtflow instance console web1 --lines 20 --follow")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the instance")
        parser.add_argument("--lines", type=whole_number(1, 10**6), metavar="N", help="only the last N lines")
        parser.add_argument("--follow", action="store_true", help="go on as the guest writes more, until Ctrl-C")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from virtflow.persistence.instances import InstanceRepository
        from virtflow.requests import check_name

        config = self.context.config
        name = check_name("name", parsed_args.name)
        instance = InstanceRepository(self.context.database).find(name, config.project)
        path = config.instances.path / instance.uuid / "console.log"
        with _open(path, parsed_args.name) as log:
            if parsed_args.lines is not None:
                log.seek(start_of_last_lines(log, parsed_args.lines))
            while True:
                self._copy(log)
                if not parsed_args.follow:
                    return 0
                time.sleep(_POLL)

    def _copy(self, log: BinaryIO) -> None:
        while chunk := log.read(_CHUNK):
            text = chunk.decode("utf-8", "replace").replace("\r\n", "\n")
            self.app.stdout.write(harmless(text) if self.app.stdout.isatty() else text)
        self.app.stdout.flush()


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(kind="console log of instance", name=name) from None
    except OSError as error:
        raise HostStorageError(action="read", path=path, reason=error.strerror) from error


def start_of_last_lines(log: BinaryIO, count: int) -> int:
    """Offset at which the last ``count`` lines begin; reads backwards, however long the file is."""
    end = position = log.seek(0, os.SEEK_END)
    missing = count + 1
    while position > 0:
        size = min(_CHUNK, position)
        position -= size
        log.seek(position)
        chunk = log.read(size)
        if position + size == end and not chunk.endswith(b"\n"):
            missing -= 1  # the last line is not finished
        for offset in range(len(chunk) - 1, -1, -1):
            if chunk[offset] == 0x0A:
                missing -= 1
                if missing == 0:
                    return position + offset + 1
    return 0


def harmless(text: str) -> str:
    """Without control characters other than line feed and tab."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
