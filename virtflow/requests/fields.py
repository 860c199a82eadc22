"""What the single fields of requests accept, and why."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from virtflow.errors import InvalidRequest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
USER_DATA_LIMIT = 65536
"""Bytes, after base64 decoding."""
FILE_LIMIT = 65536
"""Bytes of one injected file."""


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or ".." in text:
        raise ValueError(
            "must be 1 to 63 letters, digits, '.', '_' or '-', start with a letter or digit, and not contain '..'"
        )
    return text


def _host_name(text: str) -> str:
    """What [DEFAULT] host may be: often a full domain name, and so longer than other names."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", text):
        raise ValueError("must be 1 to 255 letters, digits, '.', '_' or '-', and start with a letter or digit")
    return text


def plain_text(text: str) -> str:
    """Text that can be stored, printed on a terminal and carried by XML 1.0 (which has no control characters)."""
    for char in text:
        code = ord(char)
        if 0xD800 <= code < 0xE000:
            raise ValueError("contains a lone surrogate (text that is not valid Unicode)")
        if code < 0x20 or 0x7F <= code < 0xA0 or code in (0x2028, 0x2029, 0xFFFE, 0xFFFF):
            raise ValueError(f"contains the control character U+{code:04X}")
    return text


def _reference(text: str) -> str:
    """Name or id of an image: Glance's names may have spaces, but nothing that reads as a path, option or quote."""
    plain_text(text)
    if not text or text != text.strip() or text.startswith("-") or ".." in text or set(text) & set("/\\'\"`"):
        raise ValueError("must not be empty, start with '-' or a space, or contain '/', '\\', '..' or quotes")
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(plain_text(text)))
    except ValueError:
        raise ValueError("must be an IP address") from None


_KEY_TYPES = re.compile(r"(sk-)?(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521))(@openssh\.com)?")


def _public_key(text: str) -> str:
    """One line of an authorized_keys file without options (OpenSSH: sshd(8), AUTHORIZED_KEYS FILE FORMAT)."""
    if "PRIVATE KEY" in text:
        raise ValueError("is a private key: give the public one (the file that ends in .pub)")
    text = plain_text(text.strip())
    algorithm, _, rest = text.partition(" ")
    body = rest.strip().partition(" ")[0]
    if not _KEY_TYPES.fullmatch(algorithm):
        raise ValueError("must be an OpenSSH public key such as 'ssh-ed25519 AAAA... comment'")
    try:
        blob = base64.b64decode(body, validate=True)
    except binascii.Error:
        blob = b""
    # RFC 4253, section 6.6: the encoded key begins with its own type as a length-prefixed string.
    prefix = len(algorithm).to_bytes(4, "big") + algorithm.encode()
    if not blob.startswith(prefix) or len(blob) < len(prefix) + 32:
        raise ValueError(f"is not a complete {algorithm} public key")
    return text


def _from_base64(value: object) -> object:
    """JSON and YAML carry bytes as base64 text; Python callers and YAML's !!binary give bytes."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode("".join(value.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("must be base64") from None


def _at_most(limit: int) -> Callable[[bytes], bytes]:
    def check(content: bytes) -> bytes:
        if len(content) > limit:
            raise ValueError(f"must have at most {limit} bytes")
        return content

    return check


def guest_path(text: str) -> str:
    plain_text(text)
    parts = text.split("/")
    if not text.startswith("/") or text.endswith("/") or ".." in parts or "." in parts:
        raise ValueError("must be an absolute path of a file in the guest, without '..'")
    return text


Name = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(_name)]
HostName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_host_name)]
Reference = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_reference)]
Text = Annotated[str, Field(max_length=255), AfterValidator(plain_text)]
PublicKey = Annotated[str, Field(max_length=16384), AfterValidator(_public_key)]
Address = Annotated[str, Field(max_length=45), AfterValidator(_address)]
UserData = Annotated[bytes, BeforeValidator(_from_base64), AfterValidator(_at_most(USER_DATA_LIMIT))]
Content = Annotated[bytes, BeforeValidator(_from_base64), AfterValidator(_at_most(FILE_LIMIT))]
MetaKey = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(plain_text)]


def check_name(field: str, text: str) -> str:
    """A name, for what is no request (flavors, networks, projects). InvalidRequest."""
    return _checked(field, text, _name)


def check_text(field: str, text: str) -> str:
    """Text of at most 255 characters, none of them a control character. InvalidRequest."""
    if len(text) > 255:
        raise InvalidRequest(field=field, reason="must have at most 255 characters")
    return _checked(field, text, plain_text)


def check_address(field: str, text: str) -> str:
    """An IP address in its canonical spelling. InvalidRequest."""
    return _checked(field, text, _address)


def _checked(field: str, text: str, check: Callable[[str], str]) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise InvalidRequest(field=field, reason=str(error)) from None
