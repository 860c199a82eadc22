"""The URL of a board's server, as the configuration has it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit, urlunsplit

from virtflow.errors import ConfigurationError


def server_url(url: str | None, schemes: Sequence[str], example: str) -> str:
    """``[jobboard] url``. Raises ConfigurationError when it is missing or of another kind of server."""
    if url is None:
        raise ConfigurationError(group="jobboard", option="url", reason=f"this board needs one, such as {example}")
    if urlsplit(url).scheme not in schemes:
        raise ConfigurationError(group="jobboard", option="url", reason=f"this board wants one such as {example}")
    return url


def hosts_of(url: str, port: int) -> list[tuple[str, int]]:
    """The hosts of ``scheme://host1:port,host2/``, with the port that those have who name none.

    Raises ConfigurationError.
    """
    found = []
    for one in urlsplit(url).netloc.rpartition("@")[2].split(","):
        try:
            parsed = urlsplit(f"//{one}")
            host, own_port = parsed.hostname, parsed.port
        except ValueError as error:
            raise ConfigurationError(group="jobboard", option="url", reason=str(error)) from error
        if not host:
            raise ConfigurationError(group="jobboard", option="url", reason="it names no host")
        found.append((host, own_port or port))
    return found


def credentials_of(url: str) -> tuple[str, str] | None:
    """User and password, if it names both."""
    user, colon, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return (unquote(user), unquote(password)) if colon else None


def without_password(url: str) -> str:
    """For messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
