"""All pages of the reference that follow from the code."""

from __future__ import annotations

from scripts.documentation.command_pages import commands_page
from scripts.documentation.option_pages import options_page
from scripts.documentation.pages import ROOT, replaced
from scripts.documentation.task_pages import tasks_page
from virtflow import errors


def reference_pages() -> dict[str, str]:
    """Pages by path below the project."""
    codes = "docs/reference/exit-codes.md"
    own_flow = "docs/how-to/write-a-flow.md"
    example = (ROOT / "docs/how-to/own_flow/notes.py").read_text(encoding="utf-8")
    return {
        "docs/reference/commands.md": commands_page(),
        "docs/reference/configuration.md": options_page(),
        "docs/reference/tasks.md": tasks_page(),
        codes: replaced(codes, "errors", _errors()),
        own_flow: replaced(own_flow, "notes.py", f"```python\n{example}```"),
    }


def _errors() -> str:
    found = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.VirtflowError) and each is not errors.VirtflowError
    ]
    rows = ["| code | error | message |", "|---|---|---|"]
    for error in sorted(found, key=lambda each: each.exit_code):
        rows.append(f"| {error.exit_code} | `{error.__name__}` | {error.template.replace('|', '&#124;')} |")
    return "\n".join(rows)
