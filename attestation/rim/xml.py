"""The one bounded way in which XML is read: UTF-8 elements, attributes and text, and nothing else.

Everything that makes XML dangerous is refused by looking at the bytes, before any parser sees them: document types
(and with them every entity but the five predefined ones), comments, CDATA sections, processing instructions, other
encodings, and sizes beyond named limits. In well-formed XML ``<!`` and ``<?`` can only begin one of those (XML 1.0,
fifth edition, production 43), so that the search is exact. libxml2, which parses what is left, gets no network, no DTD
and no entity to resolve.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from lxml import etree

from attestation.errors import MalformedError

MAX_DOCUMENT_SIZE: Final = 1 << 18
"""Bytes; NVIDIA's largest manifest seen has 25,698."""
MAX_ELEMENTS: Final = 2048
"""Elements; NVIDIA's manifests have some 90."""
MAX_DEPTH: Final = 8
"""Elements inside one another; a signed manifest has 6 (root, Signature, KeyInfo, X509Data, X509Certificate)."""
MAX_MARKUP_SIZE: Final = 8192
"""Bytes from one ``<`` to the next: a tag with its attributes and the text behind it."""

_DECLARATION: Final = re.compile(
    rb"""<\?xml version=["']1\.0["'](?: encoding=["'](?:UTF|utf)-8["'])?(?: standalone=["'](?:yes|no)["'])? ?\?>"""
)
_XML_NAMESPACE: Final = "{http://www.w3.org/XML/1998/namespace}"


def parse_xml(data: bytes, structure: str) -> etree._Element:
    """The root element of `data`, called `structure` in errors.

    Attributes of the ``xml:`` namespace are refused too: they are what Canonical XML 1.1 treats otherwise than 1.0, and
    no manifest has one.

    Raises:
        MalformedError: not well-formed UTF-8 XML, beyond a limit, or with anything but elements, attributes and text.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    _check_bytes(data, structure)
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        remove_blank_text=False,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedError(structure, f"not well-formed XML: {error}") from None
    for element in root.iter():
        if not isinstance(element.tag, str):
            raise MalformedError(structure, "has a comment, a processing instruction or an entity")
        for name in element.attrib:
            if name.startswith(_XML_NAMESPACE):
                raise MalformedError(structure, f"element {element.tag:.80} has an attribute of the xml namespace")
    return root


def text_of(element: etree._Element, structure: str) -> str:
    """The text of an element that must have no children; empty where it has none.

    Raises:
        MalformedError: it has children.
    """
    if len(element):
        raise MalformedError(structure, f"element {element.tag:.80} has elements in it, expected text")
    return element.text or ""


def _check_bytes(data: bytes, structure: str) -> None:
    """Refuse, in one linear pass each, what a parser should not even see."""
    if len(data) > MAX_DOCUMENT_SIZE:
        raise MalformedError(structure, f"{len(data)} bytes, at most {MAX_DOCUMENT_SIZE} are read")
    if data.count(b"\0"):
        raise MalformedError(structure, "has a NUL: not UTF-8 XML", offset=data.index(b"\0"))
    declaration = _DECLARATION.match(data)
    start = 0 if declaration is None else declaration.end()
    for markup in (b"<!", b"<?"):
        offset = data.find(markup, start)
        if offset >= 0:
            what = "a document type, comment or CDATA" if markup == b"<!" else "a processing instruction or declaration"
            raise MalformedError(structure, f"has {what}, which are not read", offset=offset)
    parts = data.split(b"<")
    # Every element has one tag or two, so that twice as many tags cannot be needed.
    if len(parts) - 1 > 2 * MAX_ELEMENTS:
        raise MalformedError(structure, f"more than {MAX_ELEMENTS} elements")
    if max(map(len, parts)) > MAX_MARKUP_SIZE:
        raise MalformedError(structure, f"a tag or text of more than {MAX_MARKUP_SIZE} bytes")
    depth = 0
    for part in parts[1:]:
        if part.startswith(b"/"):
            depth -= 1
        elif not part.partition(b">")[0].endswith(b"/"):
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(structure, f"elements more than {MAX_DEPTH} deep")
