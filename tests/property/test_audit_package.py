"""Evidence packages: whatever is written is read back the same, and any other bytes give a value or a typed error."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import AuditError, MalformedError
from audit.package.description import Description
from audit.package.files import open_archive
from audit.package.gaps import MAX_LISTED, Gap, GapCode, GapFinder, Item
from audit.package.lines import Line, State
from audit.package.manifest import LIMITS, MANIFEST, OPTIONAL, FileDigest, Manifest, Scope

numbers = st.integers(min_value=0, max_value=(1 << 53) - 1)
hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=8).map(tuple)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,40}", fullmatch=True)
texts = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
payloads = st.dictionaries(texts, texts | numbers | st.none(), max_size=4).map(
    lambda value: json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    readable = draw(st.booleans())
    return Line(
        index=draw(numbers),
        leaf_hash=draw(st.binary(min_size=32, max_size=32)),
        inclusion_proof=draw(hashes),
        counters=tuple(draw(st.lists(numbers, max_size=3))),
        state=State.READABLE if readable else draw(st.sampled_from((State.ERASED, State.SEALED))),
        salt=draw(st.binary(min_size=32, max_size=32)) if readable else None,
        payload=draw(payloads) if readable else None,
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    first, end, size = sorted(draw(st.tuples(numbers, numbers, numbers)))
    start, until = sorted(draw(st.tuples(numbers, numbers)))
    listed = LIMITS.keys() - {MANIFEST} - draw(st.sets(st.sampled_from(sorted(OPTIONAL))))
    return Manifest(
        origin="log.example/keystead",
        tree_size=size,
        scope=Scope(
            asset=draw(st.none() | names),
            tenant=draw(st.none() | names),
            start_time=draw(st.sampled_from((None, start))),
            end_time=draw(st.sampled_from((None, until))),
        ),
        first=first,
        end=end,
        records=draw(st.integers(min_value=0, max_value=min(250_000, end - first))),
        files=tuple(FileDigest(name, draw(st.integers(0, LIMITS[name])), "0a" * 32) for name in sorted(listed)),
    )


@given(lines())
def test_lines(line: Line) -> None:
    assert Line.parse(line.to_bytes()) == line


@given(manifests())
def test_manifests(manifest: Manifest) -> None:
    assert Manifest.parse_text(manifest.to_text()) == manifest


@given(manifests(), st.data())
def test_a_manifest_with_another_line_is_another_or_none(manifest: Manifest, data: st.DataObject) -> None:
    text = manifest.to_text().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(("", text[at] * 2, text[at].replace("0", "1"), " " + text[at])))
    altered = "".join([*text[:at], other, *text[at + 1 :]])
    with contextlib.suppress(MalformedError):
        assert altered == manifest.to_text() or Manifest.parse_text(altered) != manifest


@given(
    st.lists(st.tuples(st.none() | numbers, texts), min_size=1, max_size=5),
    st.sampled_from(GapCode),
    st.tuples(numbers, numbers).filter(lambda pair: pair[0] < pair[1]) | st.none(),
    hashes,
)
def test_descriptions(items: list[tuple[int | None, str]], code: GapCode, counters, proof) -> None:
    description = Description(
        report=1,
        signed_at=7,
        counters=counters,
        consistency_proofs={"checkpoint-before": proof},
        witnesses=(),
        quorum=0,
        gaps=(Gap(code, len(items), tuple(Item(*item) for item in items)),),
    )
    assert Description.parse(description.to_bytes()) == description
    doubled = replace(description, gaps=description.gaps * 2)
    with pytest.raises(MalformedError, match="twice"):
        Description.parse(doubled.to_bytes())


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for parse in (Line.parse, Description.parse, lambda raw: Manifest.parse_text(raw.decode("latin-1"))):
        with pytest.raises(AuditError):
            parse(data)
    with pytest.raises(AuditError), open_archive(io.BytesIO(data)):
        pass


@given(st.lists(numbers, unique=True, max_size=20).map(sorted), numbers)
def test_every_missing_number_is_counted(seen: list[int], beyond: int) -> None:
    """However far apart numbers are, it takes no time, and all that are missing are counted."""
    seen = [number + 1 for number in seen]
    end = max([*seen, 0]) + 1 + beyond
    finder = GapFinder(Scope(), 0, (0, end))
    for number in seen:
        finder.add(index=number, time=0, sealed=False, counters=(number,))
    (gap,) = finder.finish().found() or (None,)
    missing = end - 1 - len(seen)
    assert (0 if gap is None else gap.count) == missing
    assert gap is None or len(gap.items) == min(missing, MAX_LISTED)
