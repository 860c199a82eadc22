"""Read and write XML without opening a door: no DTD, no entities, no network, and no text that XML cannot carry."""

from __future__ import annotations

import re

from lxml import etree

from virtflow.errors import InvalidDomainXml, InvalidRequest

LARGEST_DOCUMENT = 1 << 20
"""In characters; libvirt itself refuses strings beyond its RPC limit of 4 MiB."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What https://www.w3.org/TR/xml/#charsets leaves out: control characters, surrogates, U+FFFE and U+FFFF."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def parse(xml: str) -> etree._Element:
    """The root element. Raises InvalidDomainXml for what is not well-formed, too long, or has a DOCTYPE."""
    if len(xml) > LARGEST_DOCUMENT:
        raise InvalidDomainXml(element="/", reason=f"longer than {LARGEST_DOCUMENT} characters")
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(xml.encode("utf-8"), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise InvalidDomainXml(element="/", reason=str(error)) from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise InvalidDomainXml(element="/", reason="a DOCTYPE is not allowed")
    return root


def text_for_xml(text: str, field: str, *, one_line: bool = True) -> str:
    """``text``, unchanged, when an XML document can carry it; otherwise InvalidRequest that names ``field``."""
    found = _NOT_XML.search(text) or (_CONTROL.search(text) if one_line else None)
    if found is not None:
        raise InvalidRequest(field=field, reason=f"character U+{ord(found.group()):04X} is not allowed")
    return text
