"""Croissant 1.0 and 1.1 descriptions of data sets (MLCommons, Croissant Format Specification), without a network.

Croissant is JSON-LD with a context that the specification gives. Names are resolved by the context that stands in the
file, so that a file cannot rename what is read; no context is ever fetched. Of the vocabulary the parts are read that
say what the data are, where they come from and which files they have: schema.org's ``name``, ``version``, ``license``,
``url``, ``sameAs``, ``isBasedOn`` and ``distribution``, PROV's ``wasDerivedFrom`` and Croissant's ``FileObject``.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from keystead.cli.descriptions.document import (
    MAX_FILES,
    DescribedFile,
    Description,
    DescriptionError,
    as_list,
    as_object,
    file_name,
    left_out,
    named_once,
    one_text,
    sha256_text,
    unique,
)

VERSIONS: Final = ("1.0", "1.1")

_SC: Final = "https://schema.org/"
_CR: Final = "http://mlcommons.org/croissant/"
_DCT: Final = "http://purl.org/dc/terms/"
_PROV: Final = "http://www.w3.org/ns/prov#"
_PREFIXES: Final = {"sc": _SC, "cr": _CR, "dct": _DCT, "prov": _PROV}
"""Prefixes that the specification gives; a context may give others."""

_SPELLINGS: Final = (("http://schema.org/", _SC), ("https://mlcommons.org/croissant/", _CR))
_KNOWN_CONTEXTS: Final = frozenset({"https://schema.org", *(f"{_CR}{version}" for version in VERSIONS)})
_KEYWORDS: Final = frozenset({"@language", "@vocab", "@version", "@protected", "@base"})
_MAX_TERMS: Final = 4_096

_EXACT_SIZE: Final = re.compile(r"([0-9]{1,18})( ?(B|bytes))?\Z")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_REPOSITORY: Final = "git+https"
"""The `encodingFormat` of a repository, which is no file and has no digest."""


def parse_croissant(document: dict[str, Any], *, digest: str) -> Description:
    """Read a description, whose bytes have the SHA-256 `digest`.

    Raises:
        DescriptionError: not Croissant 1.0 or 1.1, or a field that is read has another form; it says which.
    """
    terms = _Terms(document.get("@context"))
    if "@graph" in document:
        raise DescriptionError("@graph", "several nodes; Croissant is one object, whose @type is sc:Dataset")
    dataset = _Node(document, terms, "")
    if f"{_SC}Dataset" not in dataset.types():
        raise DescriptionError("@type", "not sc:Dataset")
    form = _version(dataset)
    files, repositories, omitted = _distribution(dataset, terms)
    inputs = [*dataset.names(f"{_SC}isBasedOn"), *dataset.names(f"{_PROV}wasDerivedFrom")]
    sources = [*dataset.names(f"{_SC}url"), *dataset.names(f"{_SC}sameAs"), *repositories]
    return Description(
        form=f"croissant-{form}",
        digest=digest,
        name=dataset.text(f"{_SC}name"),
        version=dataset.text(f"{_SC}version"),
        licences=unique(dataset.names(f"{_SC}license")),
        sources=unique(sources),
        files=named_once(files),
        inputs=unique(inputs),
        left_out=left_out([*dataset.unread(), *omitted]),
    )


def _version(dataset: _Node) -> str:
    said = [*dataset.names(f"{_DCT}conformsTo"), *dataset.names(f"{_SC}conformsTo")]
    for text in said:
        iri = _spelled(text)
        if iri.startswith(_CR) and iri.removeprefix(_CR).rstrip("/") in VERSIONS:
            return iri.removeprefix(_CR).rstrip("/")
    stated = f"says {said[0]!a:.80}" if said else "is missing"
    raise DescriptionError("conformsTo", f"{stated}; Croissant {' and '.join(VERSIONS)} are read: {_CR}1.1")


def _distribution(dataset: _Node, terms: _Terms) -> tuple[list[DescribedFile], list[str], list[str]]:
    """Files that stand by themselves, addresses of repositories, and what nothing was made of."""
    files: list[DescribedFile] = []
    repositories: list[str] = []
    omitted: list[str] = []
    for number, value in enumerate(as_list(dataset.take(f"{_SC}distribution", []), "distribution", limit=MAX_FILES)):
        where = f"distribution[{number}]"
        node = _Node(as_object(value, where), terms, where)
        types = node.types()
        if f"{_CR}FileSet" in types:
            omitted.append("distribution[] of type cr:FileSet: patterns, and no file that could be checked")
            continue
        if f"{_CR}FileObject" not in types:
            raise DescriptionError(f"{where}.@type", "neither cr:FileObject nor cr:FileSet")
        identity = node.take("@id", None)
        address = node.text(f"{_SC}contentUrl")
        if node.take(f"{_CR}containedIn", None, f"{_SC}containedIn") is not None:
            omitted.append("distribution[] with containedIn: files inside another, whose digest covers them")
            continue
        if node.text(f"{_SC}encodingFormat") == _REPOSITORY:
            repositories += [address] if address is not None else []
            omitted.append(f"distribution[] of {_REPOSITORY}: a repository, kept as a source")
            continue
        files.append(_file(node, identity, address, omitted))
        omitted += [f"distribution[].{name}" for name in node.unread()]
    return files, repositories, omitted


def _file(node: _Node, identity: object, address: str | None, omitted: list[str]) -> DescribedFile:
    name = node.text(f"{_SC}name")
    absolute = address is not None and _SCHEME.match(address) is not None
    if address is not None and not absolute:
        path = address.removeprefix("./")
    else:
        # What a download would be called: names are often titles.
        last = "" if address is None else unquote(_path(address, node.where).rpartition("/")[2])
        path = last or name or ("" if identity is None else one_text(identity, f"{node.where}.@id"))
    size = node.take(f"{_SC}contentSize", None)
    exact = None if size is None else _EXACT_SIZE.match(one_text(size, f"{node.where}.contentSize"))
    if size is not None and exact is None:
        omitted.append("distribution[].contentSize that is not in bytes: about, and nothing to check by")
    digest = node.take(f"{_SC}sha256", None, f"{_CR}sha256")
    return DescribedFile(
        name=file_name(path, f"{node.where}.contentUrl"),
        size=None if exact is None else int(exact[1]),
        sha256=None if digest is None else sha256_text(digest, f"{node.where}.sha256"),
        url=address if absolute else None,
    )


def _path(address: str, where: str) -> str:
    try:
        return urlsplit(address).path
    except ValueError:
        raise DescriptionError(f"{where}.contentUrl", f"{address!a:.80} is no address") from None


def _spelled(iri: str) -> str:
    """An IRI in the one spelling that is compared."""
    for other, ours in _SPELLINGS:
        if iri.startswith(other):
            return ours + iri.removeprefix(other)
    return iri


class _Terms:
    """What names mean, by the context in the file (JSON-LD 1.1, IRI expansion, as far as Croissant uses it)."""

    def __init__(self, context: object) -> None:
        self.language = "en"
        self._vocabulary = _SC
        self._terms: dict[str, str] = {}
        for number, part in enumerate(as_list([] if context is None else context, "@context")):
            where = f"@context[{number}]" if isinstance(context, list) else "@context"
            if isinstance(part, str):
                if _spelled(part).rstrip("/") not in _KNOWN_CONTEXTS:
                    raise DescriptionError(
                        where, f"{part!a:.80} would have to be fetched; nothing is: put it into the file"
                    )
            else:
                self._define(as_object(part, where), where)
        self._known: dict[str, str] = {}

    def _define(self, part: dict[str, Any], where: str) -> None:
        for term, value in part.items():
            if term == "@vocab":
                self._vocabulary = _spelled(one_text(value, f"{where}.@vocab"))
            elif term == "@language":
                self.language = "en" if value is None else one_text(value, f"{where}.@language")
            elif term.startswith("@"):
                if term not in _KEYWORDS:
                    raise DescriptionError(f"{where}.{term!a:.40}", "is not read; use the context of the specification")
            elif isinstance(value, dict):
                if "@id" in value:
                    self._terms[term] = one_text(value["@id"], f"{where}.{term:.40}.@id")
                if "@context" in value or "@reverse" in value:
                    raise DescriptionError(f"{where}.{term!a:.40}", "a scoped context or a reverse term is not read")
            else:
                self._terms[term] = "" if value is None else one_text(value, f"{where}.{term!a:.40}")
        if len(self._terms) > _MAX_TERMS:
            raise DescriptionError(where, f"more than {_MAX_TERMS} terms")

    def expand(self, name: str) -> str:
        """The IRI, or the keyword, that a name stands for; empty where the context makes it mean nothing."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = _spelled(self._expanded(name))
        return found

    def _expanded(self, name: str) -> str:
        if name.startswith("@"):
            return name
        if name in self._terms:
            value = self._terms[name]
            return value if value.startswith("@") or not value else self._compact(value)
        return self._compact(name)

    def _compact(self, text: str) -> str:
        prefix, colon, rest = text.partition(":")
        if not colon:
            return self._vocabulary + text
        if rest.startswith("//"):
            return text
        namespace = self._terms.get(prefix, _PREFIXES.get(prefix))
        return text if namespace is None else namespace + rest


class _Node:
    """A JSON-LD node, by what its members mean; it remembers which were read."""

    def __init__(self, value: dict[str, Any], terms: _Terms, where: str) -> None:
        self.where = where
        self._terms = terms
        self._members: dict[str, tuple[str, Any]] = {}
        for name, member in value.items():
            iri = terms.expand(name)
            if iri in self._members:
                raise DescriptionError(self._at(name), f"means the same as {self._members[iri][0]!a:.60}")
            if iri:
                self._members[iri] = (name, member)
        self._read = {"@context", "@type"}
        if where and "@context" in self._members:
            raise DescriptionError(self._at("@context"), "a context inside the file's parts is not read")

    def _at(self, name: str) -> str:
        text = ascii(name)[1:-1][:60]
        return f"{self.where}.{text}" if self.where else text

    def take(self, iri: str, default: object, *others: str) -> Any:
        """A member, by its IRI or one of `others`."""
        for each in (iri, *others):
            self._read.add(each)
            if each in self._members:
                return self._members[each][1]
        return default

    def types(self) -> set[str]:
        """IRIs of ``@type``."""
        name, value = self._members.get("@type", ("@type", []))
        where = self._at(name)
        return {self._terms.expand(one_text(each, where)) for each in as_list(value, where)}

    def text(self, iri: str) -> str | None:
        """A member that is one text; of several languages the context's."""
        value = self.take(iri, None)
        if value is None:
            return None
        where = self._at(self._members[iri][0])
        if isinstance(value, list) and value:
            value = self._in_our_language(
                {str(as_object(each, where).get("@language")): each.get("@value") for each in value}, where
            )
        elif isinstance(value, dict):
            value = value["@value"] if "@value" in value else self._in_our_language(value, where)
        return one_text(value, where)

    def _in_our_language(self, values: dict[str, Any], where: str) -> object:
        if len(values) == 1:
            return next(iter(values.values()))
        if self._terms.language in values:
            return values[self._terms.language]
        raise DescriptionError(where, f"in {len(values)} languages, and not in {self._terms.language!a:.20}")

    def names(self, iri: str) -> list[str]:
        """A member whose values are texts or nodes; a node by its ``@id``, address or name."""
        value = self.take(iri, None)
        if value is None:
            return []
        where = self._at(self._members[iri][0])
        found = []
        for number, each in enumerate(as_list(value, where)):
            here = f"{where}[{number}]" if isinstance(value, list) else where
            if isinstance(each, dict) and "@value" not in each:
                node = _Node(each, self._terms, here)
                said = node.take("@id", None, f"{_SC}url", f"{_SC}name")
                if said is None:
                    raise DescriptionError(here, "has neither @id, url nor name, so that it cannot be told what it is")
                each = said  # noqa: PLW2901 - what stands for the node
            found.append(one_text(each["@value"] if isinstance(each, dict) and "@value" in each else each, here))
        return found

    def unread(self) -> list[str]:
        """Names of members that nothing was made of."""
        return [name for iri, (name, _) in self._members.items() if iri not in self._read]
