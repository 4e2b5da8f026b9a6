"""The manifest of an evidence package: what the package is about, and the digest of each of its files, signed.

It is a C2SP signed note by the log's own key, since a stranger has no other. Its first line has spaces, which no log's
origin may have, and its second is no number: a manifest can never be taken for a checkpoint, nor the other way round.
A receipt's signed bytes begin with a zero byte and are neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from audit.errors import MalformedError, NoteSignatureError, QueryError
from audit.merkle import MAX_TREE_SIZE
from audit.note import NoteVerifier, SignedNote, Signer, check_key_name, sign_note
from audit.query import Filter
from audit.records import MAX_INTEGER
from keystead.binding import BindingError, check_id

FIRST_LINE: Final = "keystead evidence package v1"
"""Tells a manifest from everything else that the log's key signs."""

MANIFEST: Final = "manifest"
CHECKPOINT: Final = "checkpoint"
CHECKPOINT_BEFORE: Final = "checkpoint-before"
CHECKPOINT_KEPT: Final = "checkpoint-kept"
DESCRIPTION: Final = "package.json"
RECORDS: Final = "records.jsonl"
REPORT: Final = "report.html"

STRANGER: Final = ("VERIFY.md", "go.mod", "go.sum", "verify.go", "verify.py")
"""How to verify a package without Keystead: files of `audit/package/stranger`, the same in each package."""

_MIB: Final = 1 << 20

LIMITS: Final = {
    MANIFEST: 64 << 10,
    CHECKPOINT: 64 << 10,
    CHECKPOINT_BEFORE: 64 << 10,
    CHECKPOINT_KEPT: 64 << 10,
    DESCRIPTION: 16 * _MIB,
    RECORDS: (1 << 31) - 1,
    REPORT: 64 * _MIB,
    **dict.fromkeys(STRANGER, _MIB),
}
"""Every name that a file of a package may have, and how many bytes it may be long."""

OPTIONAL: Final = frozenset({CHECKPOINT_BEFORE, CHECKPOINT_KEPT})

MAX_RECORDS: Final = 250_000
"""Records of one package; a longer span is asked for in parts."""

_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_ALL: Final = "*"
_HEAD: Final = ("log", "size", "asset", "tenant", "from", "until", "first", "end", "records")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a package was asked to be about.

    Attributes:
        asset: ``tenant/name``; None asks for every asset.
        tenant: only what was this tenant's; None asks for everybody's.
        start_time, end_time: seconds since the Unix epoch, from (inclusive) and to (exclusive); None is no bound.

    Raises:
        QueryError: one of them cannot be asked for.
    """

    asset: str | None = None
    tenant: str | None = None
    start_time: int | None = None
    end_time: int | None = None

    def __post_init__(self) -> None:
        if self.asset is not None and "@" in self.asset:
            raise QueryError(
                f"package: asset {self.asset!a:.80}: leave its version out; an asset's entries are numbered over all "
                "of its versions, and only so can it be seen that none is missing"
            )
        for name in ("asset", "tenant"):
            value = getattr(self, name)
            if value is not None:
                try:
                    check_id(value, name)
                except BindingError as error:
                    raise QueryError(f"package: {error}") from None
        self.filter()

    def filter(self) -> Filter:
        """The same as a filter, for the record of who read what.

        Raises:
            QueryError: the span ends before it begins, or lies where no record can.
        """
        return Filter(asset=self.asset, tenant=self.tenant, start_time=self.start_time, end_time=self.end_time)

    @property
    def whole(self) -> bool:
        """True where every entry of the span belongs into the package, whosever it is."""
        return self.asset is None and self.tenant is None

    @property
    def numbered(self) -> bool:
        """True where the numbers of the asset's entries are shown: to all but other tenants than the asset's own."""
        return self.asset is not None and self.tenant in (None, self.asset.partition("/")[0])

    def covers(self, time: int) -> bool:
        """Whether a record of this time was asked for."""
        return (self.start_time is None or time >= self.start_time) and (self.end_time is None or time < self.end_time)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file of a package.

    Attributes:
        name: one of `LIMITS`.
        size: bytes.
        sha256: lower-case hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a package says that it is.

    Attributes:
        origin: the log.
        tree_size: entries under the package's checkpoint.
        scope: what was asked for.
        first, end: the span in the log, from index `first` up to, not including, `end`.
        records: lines of ``records.jsonl``.
        files: every file but the manifest itself, in the order of their names.
    """

    origin: str
    tree_size: int
    scope: Scope
    first: int
    end: int
    records: int
    files: tuple[FileDigest, ...]

    def __post_init__(self) -> None:
        check_key_name(self.origin)
        if not 0 <= self.first <= self.end <= self.tree_size <= MAX_TREE_SIZE:
            raise MalformedError(
                "package manifest", f"span {self.first} to {self.end} of {self.tree_size} entries is none"
            )
        if not 0 <= self.records <= min(MAX_RECORDS, self.end - self.first):
            raise MalformedError("package manifest", f"{self.records} records do not fit its span or are too many")
        names = [file.name for file in self.files]
        if names != sorted(set(names)) or set(names) | OPTIONAL | {MANIFEST} != LIMITS.keys() or MANIFEST in names:
            raise MalformedError("package manifest", "its files are not those of a package, each once and in order")
        for file in self.files:
            if not 0 <= file.size <= LIMITS[file.name] or not _DIGEST.match(file.sha256):
                raise MalformedError("package manifest", f"{file.name}: a size or digest that it cannot have")

    def to_text(self) -> str:
        """The note's text: a line for each member, then one for each file."""
        scope = self.scope
        values = (
            self.origin,
            self.tree_size,
            scope.asset,
            scope.tenant,
            scope.start_time,
            scope.end_time,
            self.first,
            self.end,
            self.records,
        )
        head = [f"{name} {_ALL if value is None else value}" for name, value in zip(_HEAD, values, strict=True)]
        return "\n".join([FIRST_LINE, *head, *(f"{each.sha256} {each.size} {each.name}" for each in self.files), ""])

    @classmethod
    def parse_text(cls, text: str) -> Self:
        """Parse `to_text`'s text; nothing else is accepted.

        Raises:
            MalformedError: it is not a manifest of this version.
        """
        lines = text.split("\n")
        if lines[0] != FIRST_LINE or lines[-1] or len(lines) < len(_HEAD) + 2 or len(lines) > 64:
            raise MalformedError("package manifest", f"does not begin with {FIRST_LINE!r} and its {len(_HEAD)} lines")
        values: dict[str, str] = {}
        for name, line in zip(_HEAD, lines[1:], strict=False):
            label, _, value = line.partition(" ")
            if label != name:
                raise MalformedError("package manifest", f"line {line!a:.40} is not {name!r} and its value")
            values[name] = value
        files = []
        for line in lines[len(_HEAD) + 1 : -1]:
            parts = line.split(" ")
            if len(parts) != 3:
                raise MalformedError("package manifest", f"line {line!a:.80} is not a digest, a size and a name")
            files.append(FileDigest(parts[2], _number(parts[1], "size of a file"), parts[0]))
        try:
            scope = Scope(
                asset=None if values["asset"] == _ALL else values["asset"],
                tenant=None if values["tenant"] == _ALL else values["tenant"],
                start_time=None if values["from"] == _ALL else _number(values["from"], "from"),
                end_time=None if values["until"] == _ALL else _number(values["until"], "until"),
            )
        except QueryError as error:
            raise MalformedError("package manifest", str(error)) from None
        manifest = cls(
            origin=values["log"],
            tree_size=_number(values["size"], "size"),
            scope=scope,
            first=_number(values["first"], "first"),
            end=_number(values["end"], "end"),
            records=_number(values["records"], "records"),
            files=tuple(files),
        )
        if manifest.to_text() != text:
            raise MalformedError("package manifest", "not in its canonical form")
        return manifest

    def sign(self, signer: Signer) -> SignedNote:
        """Sign the manifest with the log's key.

        Raises:
            NoteSignatureError: the key is another log's.
        """
        if signer.verifier.name != self.origin:
            raise NoteSignatureError(
                f"package: the key {signer.verifier.name!r} is not that of the log {self.origin!r}; give the "
                "configuration of the broker whose log this is"
            )
        return sign_note(self.to_text(), [signer])


def open_manifest(note: bytes, verifier: NoteVerifier) -> Manifest:
    """Parse a signed manifest and check its signature by the log's key.

    Raises:
        MalformedError: it is not a manifest, or of another log than the key's.
        NoteSignatureError: the key did not sign it.
    """
    signed = SignedNote.parse(note)
    signed.verify(verifier)
    manifest = Manifest.parse_text(signed.text)
    if manifest.origin != verifier.name:
        raise MalformedError("package manifest", f"log {manifest.origin!r:.80} is not the key's, {verifier.name!r}")
    return manifest


def _number(text: str, what: str) -> int:
    if not _NUMBER.match(text) or int(text) > max(MAX_INTEGER, MAX_TREE_SIZE):
        raise MalformedError("package manifest", f"{what} {text!a:.40} is not a number")
    return int(text)
