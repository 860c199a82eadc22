"""The configuration reference, from the options themselves."""

from __future__ import annotations

from scripts.documentation.pages import NOTICE
from virtflow.config.registry import Option, options
from virtflow.config.spec import Spec

_INTRODUCTION = """\
# Configuration

`virtflow config sample` prints all of this as a file to start from; `virtflow config show --origin` says which value
holds and where it comes from. In rising order of precedence: the default, configuration files, the environment,
`--state-dir`, `--log-file` and `--set GROUP.OPTION=VALUE` on the command line.

Files are `/etc/virtflow/virtflow.conf` and then `virtflow/virtflow.conf` in `$XDG_CONFIG_HOME` (`~/.config`); or,
instead of both, those given by `--config-file` and the `*.conf` files of `--config-dir`. In the environment an
option is `VIRTFLOW_GROUP__OPTION`, or `VIRTFLOW_OPTION` for the group `[DEFAULT]`: `VIRTFLOW_LIBVIRT__VIRT_TYPE=qemu`,
`VIRTFLOW_STATE_DIR=/srv/virtflow`. An empty variable counts as unset."""
_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Path": "path",
    "tuple": "list",
}


def options_page() -> str:
    """The whole page."""
    lines = [NOTICE.format(script="reference-pages") + _INTRODUCTION]
    group = None
    for option in options():
        if option.group != group:
            group = option.group
            lines += ["", f"## [{group}]", "", "| option | accepts | default | meaning |", "|---|---|---|---|"]
        lines.append(f"| `{option.name}` | {_accepts(option)} | {_default(option.spec)} | {_cell(option.spec.help)} |")
    return "\n".join(lines) + "\n"


def _accepts(option: Option) -> str:
    spec = option.spec
    if spec.choices:
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    bounds = f", {spec.low:.15g} to {spec.high:.15g}" if spec.low is not None and spec.high is not None else ""
    return _TYPES[option.type.__name__] + bounds + (", secret" if spec.secret else "")


def _default(spec: Spec) -> str:
    if spec.shown_default is not None:
        return _cell(spec.shown_default)
    if spec.default is None or spec.default == ():
        return "unset"
    return f"`{str(spec.default).lower() if isinstance(spec.default, bool) else spec.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
