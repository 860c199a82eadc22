"""Read the configuration: files, then the environment, then the command line, each overriding the one before.

Files are /etc/virtflow/virtflow.conf, the user's own $XDG_CONFIG_HOME/virtflow/virtflow.conf, or instead of both the
files that are named. In the environment an option is VIRTFLOW_<GROUP>__<OPTION>; those of [DEFAULT] also go by
VIRTFLOW_<OPTION>, and oslo.config's own OS_<GROUP>__<OPTION> is read as well. An empty variable counts as unset.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from oslo_config import cfg

from virtflow.config.options import Config
from virtflow.config.registry import Option, groups, list_opts, options
from virtflow.config.spec import DEFAULT_GROUP
from virtflow.errors import ConfigurationError

SYSTEM_FILE = Path("/etc/virtflow/virtflow.conf")
_QUOTED = 80
"""How many characters of a wrong value an error repeats."""


def load(
    config_files: Iterable[str | os.PathLike[str]] = (),
    *,
    config_dirs: Iterable[str | os.PathLike[str]] = (),
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of this process.

    ``overrides`` are what the command line says: keys are ``group.option``, or ``option`` for [DEFAULT]. Raises
    ConfigurationError naming group and option for a value that is not acceptable or a file that cannot be read.
    """
    env = os.environ if env is None else env
    files = [os.fspath(f) for f in config_files] or default_files(env)
    conf = _parse(files, [os.fspath(d) for d in config_dirs])
    _set_machine_defaults(conf, env)
    origins = _from_environment(conf, env) | _from_command_line(conf, overrides or {})
    values: dict[str, dict[str, Any]] = {group: {} for group in (DEFAULT_GROUP, *groups())}
    for option in options():
        key = (option.group, option.name)
        values[option.group][option.name] = _resolve(conf, option)
        origins.setdefault(key, _origin_in_files(conf, option))
    if origins["libvirt", "uri"] == "default":
        # The template cannot say that a path inside a URI is percent-encoded.
        root = values[DEFAULT_GROUP]["state_dir"] / "libvirt"
        values["libvirt"]["uri"] = f"qemu:///embed?root={quote(str(root))}"
    grouped = {name: cls(**values[name]) for name, cls in groups().items()}
    warnings = (*_unknown_in_files(conf), *_unknown_in_environment(env))
    return Config(**values[DEFAULT_GROUP], **grouped, sources=origins, warnings=warnings)


def default_files(env: Mapping[str, str]) -> list[str]:
    """The configuration files that exist, in the order in which they are read."""
    home = env.get("HOME") or os.path.expanduser("~")
    own = Path(env.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")) / "virtflow" / "virtflow.conf"
    return [str(path) for path in (SYSTEM_FILE, own) if path.is_file()]


def default_state_dir(env: Mapping[str, str]) -> Path:
    """/var/lib/virtflow for root; for others virtflow in the XDG state directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/virtflow")
    home = env.get("HOME") or os.path.expanduser("~")
    return Path(env.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")) / "virtflow"


def _parse(files: list[str], dirs: list[str]) -> cfg.ConfigOpts:
    for path in files:
        _readable(path, "config_file", directory=False)
    for path in dirs:
        _readable(path, "config_dir", directory=True)
    conf = cfg.ConfigOpts()
    for group, opts in list_opts():
        conf.register_opts(opts, group=None if group == DEFAULT_GROUP else group)
    try:
        conf([], project="virtflow", default_config_files=files, default_config_dirs=dirs, use_env=False)
    except (cfg.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(group=DEFAULT_GROUP, option="config_file", reason=_one_line(error)) from error
    return conf


def _readable(path: str, option: str, *, directory: bool) -> None:
    reason = ""
    if not os.path.exists(path):
        reason = f"cannot read {path}: no such file or directory"
    elif os.path.isdir(path) != directory:
        reason = f"cannot read {path}: it is {'no' if directory else 'a'} directory"
    elif not os.access(path, os.R_OK):
        reason = f"cannot read {path}: permission denied"
    if reason:
        raise ConfigurationError(group=DEFAULT_GROUP, option=option, reason=_one_line(reason))


def _set_machine_defaults(conf: cfg.ConfigOpts, env: Mapping[str, str]) -> None:
    # A dollar sign in a path would be taken for a reference to another option.
    conf.set_default("state_dir", str(default_state_dir(env)).replace("$", "$$"))
    conf.set_default("host", socket.gethostname())


def _from_environment(conf: cfg.ConfigOpts, env: Mapping[str, str]) -> dict[tuple[str, str], str]:
    found = {}
    for option in options():
        for variable in _variables(option):
            if env.get(variable):
                _override(conf, option, env[variable])
                found[option.group, option.name] = "environment"
                break
    return found


def _variables(option: Option) -> list[str]:
    long = f"{option.group}__{option.name}".upper()
    short = [f"VIRTFLOW_{option.name.upper()}"] if option.group == DEFAULT_GROUP else []
    return [*short, f"VIRTFLOW_{long}", f"OS_{long}"]


def _from_command_line(conf: cfg.ConfigOpts, overrides: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    known = {(option.group, option.name): option for option in options()}
    found = {}
    for key, value in overrides.items():
        group, _, name = key.rpartition(".")
        option = known.get((group or DEFAULT_GROUP, name))
        if option is None:
            raise ConfigurationError(
                group=_one_line(group or DEFAULT_GROUP), option=_one_line(name), reason="no such option"
            )
        _override(conf, option, value)
        found[option.group, option.name] = "command line"
    return found


def _override(conf: cfg.ConfigOpts, option: Option, value: Any) -> None:
    group = None if option.group == DEFAULT_GROUP else option.group
    try:
        conf.set_override(option.name, value if isinstance(value, (str, bool)) else str(value), group)
    except ValueError as error:
        raise _refuse(option, error) from error


def _resolve(conf: cfg.ConfigOpts, option: Option) -> Any:
    """The value with references replaced, of the option's Python type, and within its bounds."""
    try:
        scope = conf if option.group == DEFAULT_GROUP else conf[option.group]
        value = scope[option.name]
    except (ValueError, cfg.Error) as error:
        raise _refuse(option, error) from error
    if value is None:
        return None
    for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        _check_text(option, text)
    if option.type is float and not math.isfinite(value):
        raise _refuse(option, "must be a finite number")
    if option.type is tuple:
        return tuple(value)
    if option.type is Path:
        return Path(os.path.abspath(os.path.expanduser(value)))
    return value


def _check_text(option: Option, text: str) -> None:
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise _refuse(option, "contains characters that cannot be printed")
    if not text:
        raise _refuse(option, "must not be empty")
    pattern = option.spec.pattern
    if pattern and not re.fullmatch(pattern, text):
        shown = "" if option.spec.secret or "://" in text else f"{_one_line(text)!r} "
        raise _refuse(option, f"{shown}does not look like {option.spec.wanted}")


def _refuse(option: Option, reason: object) -> ConfigurationError:
    text = "not acceptable (not shown: the option is secret)" if option.spec.secret else _one_line(reason)
    return ConfigurationError(group=option.group, option=option.name, reason=text)


def _one_line(reason: object) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(reason))
    return text if len(text) <= 4 * _QUOTED else text[: 3 * _QUOTED] + "..." + text[-_QUOTED:]


def _origin_in_files(conf: cfg.ConfigOpts, option: Option) -> str:
    location = conf.get_location(option.name, None if option.group == DEFAULT_GROUP else option.group)
    return f"file:{location.detail}" if location and location.location == cfg.Locations.user else "default"


def _unknown_in_files(conf: cfg.ConfigOpts) -> list[str]:
    known = {(option.group, option.name) for option in options()}
    found = []
    for path in [*conf.default_config_files, *_files_in(conf.default_config_dirs)]:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(path, sections).parse()
        for group, entries in sections.items():
            found += [f"{path}: [{group}] {name}: no such option" for name in entries if (group, name) not in known]
    return [_one_line(line) for line in found]


def _files_in(dirs: Iterable[str]) -> list[str]:
    return [str(path) for d in dirs for path in sorted(Path(d).glob("*.conf"))]


def _unknown_in_environment(env: Mapping[str, str]) -> list[str]:
    known = {variable for option in options() for variable in _variables(option)}
    return [
        _one_line(f"environment variable {name}: no such option")
        for name in sorted(env)
        if name.startswith("VIRTFLOW_") and "__" in name and name not in known
    ]
