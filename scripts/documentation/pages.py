"""Writing what was made, or finding out that what is checked in is something else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOTICE = "<!-- Made by scripts/{script}; edit the code, not this file. -->\n\n"


def replaced(page: str, part: str, content: str) -> str:
    """The text of a page with the part between its two markers replaced. ValueError when they are not there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    start, end = f"<!-- begin {part} -->\n", f"<!-- end {part} -->"
    before, found, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} has no part marked {part!r}")
    return f"{before}{start}{content.strip()}\n{end}{after}"


def differing(pages: Mapping[str, str]) -> list[str]:
    """Which of the pages, by path below the project, are not as they should be."""
    return [page for page, text in pages.items() if not _same(ROOT / page, text)]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(script: str, about: str, pages: Mapping[str, str]) -> int:
    """The command line of a script: writes the pages, or with --check only tells which differ."""
    parser = argparse.ArgumentParser(prog=f"scripts/{script}", description=about)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page would change")
    arguments = parser.parse_args()
    changed = differing(pages)
    for page in changed:
        if not arguments.check:
            (ROOT / page).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / page).write_text(pages[page], encoding="utf-8")
        print(f"{page}: {'differs, run scripts/' + script if arguments.check else 'written'}", file=sys.stderr)
    return int(bool(changed) and arguments.check)
