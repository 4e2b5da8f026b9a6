"""Reference integrity manifests: each defect gives its finding, nothing unverified is read, and bombs burst early."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from attestation.errors import MalformedError, TrustAnchorError
from attestation.findings import CheckLog
from attestation.rim import checks, xml
from attestation.rim.document import RimKind
from attestation.rim.verify import RimAnchors, VerifiedRim, check_signer, parse_rim, verify_rim
from attestation.rim.xml import parse_xml
from attestation.simulator.nvgpu import SimulatedGpuVendor
from attestation.simulator.rim import RimDefect as D
from attestation.simulator.rim import SimulatedRimAuthority

NOW = 1_790_000_000
YEAR = 365 * 24 * 3600
VENDOR = SimulatedGpuVendor(b"\x01" * 32)
AUTHORITY = SimulatedRimAuthority(vendor=VENDOR, not_before=NOW - YEAR)
ANCHORS = AUTHORITY.anchors()
GPU = VENDOR.gpu(1)
SOUND = AUTHORITY.driver(GPU)


def judge(data: bytes, *, anchors: RimAnchors = ANCHORS) -> tuple[VerifiedRim | None, CheckLog]:
    log = CheckLog()
    return verify_rim(data, anchors=anchors, now=NOW, log=log), log


def codes(log: CheckLog) -> set[str]:
    return {finding.code for finding in log.findings}


def test_a_sound_manifest_passes_every_rule() -> None:
    rim, log = judge(SOUND)
    assert rim is not None
    assert log.findings == []
    assert {passed.code for passed in log.passed} == {
        check.code
        for check in (
            checks.DOCUMENT,
            checks.SIGNATURE_FORM,
            checks.DIGEST,
            checks.CHAIN,
            checks.SIGNATURE,
            checks.CONTENT,
        )
    }
    assert rim.simulated
    assert (rim.document.product, rim.document.version, rim.document.kind) == ("GH100", "580.95.05", RimKind.DRIVER)
    assert sorted(rim.document.active) == [7, *range(21, 41)]
    assert len(rim.document.measurements) == 64
    assert rim.document.active[7].digests == (GPU.measurements[8],)
    assert (rim.not_before, rim.not_after) == (NOW - YEAR, NOW + YEAR)


def test_a_manifest_that_verified_before_gives_the_same_outcome() -> None:
    anchors = AUTHORITY.anchors()
    (first, cold), (second, warm) = judge(SOUND, anchors=anchors), judge(SOUND, anchors=anchors)
    assert first is second
    assert cold.passed == warm.passed
    broken = AUTHORITY.driver(GPU, defects=[D.ALTERED])
    assert codes(judge(broken, anchors=anchors)[1]) == codes(judge(broken, anchors=anchors)[1]) == {"RIM_DIGEST"}


DEFECTS = {
    D.ALTERED: {"RIM_DIGEST"},
    D.BAD_SIGNATURE: {"RIM_SIGNATURE"},
    D.OTHER_SIGNER: {"RIM_SIGNATURE"},
    D.OTHER_ROOT: {"RIM_CHAIN", "X509_ROOT_PINNED"},
    D.UNSIGNED: {"RIM_SIGNATURE_FORM"},
    D.TWO_SIGNATURES: {"RIM_SIGNATURE_FORM"},
    D.WRAPPED: {"RIM_SIGNATURE_FORM", "RIM_CONTENT"},
    D.REFERENCE_BY_ID: {"RIM_SIGNATURE_FORM"},
    D.EXTRA_TRANSFORM: {"RIM_SIGNATURE_FORM"},
    D.OTHER_CANONICALIZATION: {"RIM_SIGNATURE_FORM"},
    D.OTHER_ALGORITHM: {"RIM_SIGNATURE_FORM"},
    D.NO_CERTIFICATES: {"RIM_SIGNATURE_FORM"},
    D.BAD_CERTIFICATE: {"RIM_SIGNATURE_FORM"},
    D.NOT_DER: {"RIM_CHAIN", "RIM_SIGNATURE"},
    D.DUPLICATE_INDEX: {"RIM_CONTENT"},
    D.BAD_INDEX: {"RIM_CONTENT"},
    D.WRONG_SIZE: {"RIM_CONTENT"},
    D.MISSING_ALTERNATIVE: {"RIM_CONTENT"},
    D.HASH_NAMESPACE: {"RIM_CONTENT"},
    D.SHORT_HASH: {"RIM_CONTENT"},
    D.BAD_ACTIVE: {"RIM_CONTENT"},
    D.NONE_ACTIVE: {"RIM_CONTENT"},
    D.NO_VERSION: {"RIM_CONTENT"},
    D.DOCTYPE: {"RIM_DOCUMENT"},
    D.COMMENT: {"RIM_DOCUMENT"},
    D.XML_ATTRIBUTE: {"RIM_DOCUMENT"},
}


def test_every_defect_is_tried() -> None:
    assert set(DEFECTS) == set(D)


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_gives_its_finding_and_no_manifest(defect: D) -> None:
    rim, log = judge(AUTHORITY.driver(GPU, defects=[defect]))
    assert rim is None
    assert codes(log) == DEFECTS[defect]
    for finding in log.findings:
        assert finding.remedy
        assert finding.expected != finding.actual


@pytest.mark.parametrize("defect", [D.UNSIGNED, D.WRAPPED, D.DUPLICATE_INDEX])
def test_a_manifest_that_is_not_whole_is_no_value(defect: D) -> None:
    data = AUTHORITY.driver(GPU, defects=[defect])
    with pytest.raises(MalformedError):
        parse_rim(data)


def test_a_signature_by_another_curve_or_chain_is_none() -> None:
    other = RimAnchors.simulated(SimulatedGpuVendor(b"\x02" * 32).root_der)
    rim, log = judge(SOUND, anchors=other)
    assert rim is None
    assert codes(log) == {"RIM_CHAIN", "X509_ROOT_PINNED"}
    assert codes(judge(SOUND, anchors=RimAnchors.nvidia())[1]) == {"RIM_CHAIN", "X509_ROOT_PINNED"}


def test_text_around_the_signature_is_covered_by_it() -> None:
    moved = SOUND.replace(b"</SoftwareIdentity>", b" \n</SoftwareIdentity>")
    assert codes(judge(moved)[1]) == {"RIM_DIGEST"}
    moved = SOUND.replace(b"<ds:SignatureValue>", b"x<ds:SignatureValue>")
    assert codes(judge(moved)[1]) == {"RIM_SIGNATURE_FORM"}


def test_a_document_without_a_canonical_form_is_refused() -> None:
    relative = SOUND.replace(b'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"', b'xmlns:ns2="relative"')
    rim, log = judge(relative)
    assert rim is None
    assert "RIM_SIGNATURE_FORM" in codes(log)
    with pytest.raises(MalformedError, match="canonical"):
        parse_rim(relative)


def test_base64_is_strict() -> None:
    start = SOUND.index(b"<ds:SignatureValue>") + len(b"<ds:SignatureValue>")
    assert codes(judge(SOUND[:start] + b"!" + SOUND[start:])[1]) == {"RIM_SIGNATURE_FORM"}
    short = base64.b64encode(bytes(95))
    end = SOUND.index(b"</ds:SignatureValue>")
    assert codes(judge(SOUND[:start] + short + SOUND[end:])[1]) == {"RIM_SIGNATURE_FORM"}
    spaced = SOUND[: start + 10] + b"\r\n \t" + SOUND[start + 10 :]
    assert codes(judge(spaced)[1]) <= {"RIM_SIGNATURE"}, "white space in base64 is allowed (XML Signature 1.1, 4.3)"


@pytest.mark.parametrize(
    ("at", "grace", "valid", "code"),
    [
        (NOW - YEAR, 0, True, None),
        (NOW - YEAR - 1, 10, False, "RIM_SIGNER_VALIDITY"),
        (NOW + YEAR, 0, True, None),
        (NOW + YEAR + 1, 0, False, "RIM_SIGNER_VALIDITY"),
        (NOW + YEAR + 10, 10, True, "RIM_SIGNER_GRACE"),
        (NOW + YEAR + 11, 10, False, "RIM_SIGNER_VALIDITY"),
    ],
)
def test_the_signers_expiry_is_policy(at: int, grace: int, valid: bool, code: str | None) -> None:
    rim, _ = judge(SOUND)
    assert rim is not None
    log = CheckLog()
    assert check_signer(rim, now=at, grace=grace, log=log) is valid
    assert codes(log) == ({code} if code else set())


def test_anchors() -> None:
    with pytest.raises(TrustAnchorError):
        RimAnchors.simulated()
    both = RimAnchors.nvidia().with_simulated(VENDOR.root_der)
    rim, _ = judge(SOUND, anchors=both)
    assert rim is not None
    assert rim.simulated


BOMBS = {
    "entities": b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><x>&b;</x>',
    "external": b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
    "entity without a type": b"<x>&undefined;</x>",
    "comment": b"<x><!-- --></x>",
    "cdata": b"<x><![CDATA[y]]></x>",
    "instruction": b"<x><?php y?></x>",
    "stylesheet": b'<?xml-stylesheet href="x"?><x/>',
    "other encoding": b'<?xml version="1.0" encoding="UTF-7"?><x/>',
    "utf-16": "<x/>".encode("utf-16"),
    "not utf-8": b"<x>\xff</x>",
    "deep": b"<x>" * 5000 + b"</x>" * 5000,
    "deep by a little": b"<x>" * (xml.MAX_DEPTH + 1) + b"</x>" * (xml.MAX_DEPTH + 1),
    "wide": b"<x>" + b"<y/>" * 5000 + b"</x>",
    "attributes": b"<x " + b" ".join(b'a%d=""' % index for index in range(20000)) + b"/>",
    "attribute": b'<x a="' + b"a" * 200000 + b'"/>',
    "text": b"<x>" + b"a" * 200000 + b"</x>",
    "long": b"<x>" + b" " * (1 << 24) + b"</x>",
    "nothing": b"",
    "two roots": b"<x/><x/>",
    "not closed": b"<x>",
    "namespace": b"<y:x/>",
    "duplicate attribute": b'<x a="" a=""/>',
    "xml attribute": b'<x xml:id="a"/>',
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_dangerous_xml_is_refused_quickly(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(MalformedError):
        parse_xml(data, "test")
    assert time.process_time() - started < 0.5
    rim, log = judge(data)
    assert rim is None
    assert codes(log) == {"RIM_DOCUMENT"}


def of_size(size: int) -> bytes:
    """A document of `size` bytes, in pieces that no other limit refuses."""
    piece = b"<y>" + b" " * 5000 + b"</y>"
    count = (size - 7) // len(piece) - 1
    rest = size - 7 - count * len(piece)
    return b"<x>" + piece * count + b"<y>" + b" " * (rest - 7) + b"</y></x>"


def tags(count: int) -> bytes:
    """A document of this even number of tags."""
    return b"<x>" + b"<y></y>" * (count // 2 - 1) + b"</x>"


@pytest.mark.parametrize(
    ("most", "more", "problem"),
    [
        (of_size(xml.MAX_DOCUMENT_SIZE), of_size(xml.MAX_DOCUMENT_SIZE + 1), "bytes, at most"),
        (tags(2 * xml.MAX_ELEMENTS), tags(2 * xml.MAX_ELEMENTS).replace(b"<y>", b"<z/><y>", 1), "elements"),
        (
            b"<x>" + b" " * (xml.MAX_MARKUP_SIZE - 2) + b"</x>",
            b"<x>" + b" " * (xml.MAX_MARKUP_SIZE - 1) + b"</x>",
            "a tag or text of more than",
        ),
    ],
    ids=["size", "elements", "markup"],
)
def test_the_limits_of_xml(most: bytes, more: bytes, problem: str) -> None:
    assert parse_xml(most, "test").tag == "x"
    with pytest.raises(MalformedError, match=problem):
        parse_xml(more, "test")


@pytest.mark.parametrize("before", ["", "<y></y><y></y>", "<y/>"])
@pytest.mark.parametrize("text", ["", "/>"])
def test_how_deep_xml_may_be(before: str, text: str) -> None:
    def nested(depth: int) -> bytes:
        inside = depth - 1
        return f"<x>{before}{f'<y>{text}' * inside}{'</y>' * inside}</x>".encode()

    assert parse_xml(nested(xml.MAX_DEPTH), "test").tag == "x"
    with pytest.raises(MalformedError, match="deep"):
        parse_xml(nested(xml.MAX_DEPTH + 1), "test")


def test_what_no_parser_should_see_is_found_where_it_is_first() -> None:
    for data, offset, problem in (
        (b"<x>\0</x>", 3, "NUL"),
        (b"<x><!-- --><y/><!-- --></x>", 3, "a document type, comment or CDATA"),
        (b"<x><?y?><?y?></x>", 3, "a processing instruction or declaration"),
    ):
        with pytest.raises(MalformedError, match=problem) as refused:
            parse_xml(data, "test")
        assert refused.value.offset == offset


def test_harmless_xml_is_read() -> None:
    for data in (b"<x/>", b'<?xml version="1.0" encoding="UTF-8"?>\n<x a="&lt;!-- &amp;"/>', "<x>‖</x>".encode()):
        assert parse_xml(data, "test").tag == "x"
        assert parse_xml(b"\xef\xbb\xbf" + data, "test").tag == "x", "a UTF-8 signature is allowed"


@pytest.mark.vectors
def test_published_manifests(vectors: Path) -> None:
    anchors = RimAnchors.nvidia()
    genuine = [path for path in sorted(vectors.glob("nvidia-rim/*/rim.swidtag")) if "neg-" not in str(path)]
    assert len(genuine) >= 8
    for path in genuine:
        data = path.read_bytes()
        rim, log = judge(data, anchors=anchors)
        assert rim is not None, (path, log.findings)
        assert not rim.simulated
        flipped = bytearray(data)
        flipped[data.index(b'active="True"') + len(b'active="')] ^= 0x20
        assert judge(bytes(flipped), anchors=anchors)[0] is None


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("invalid-index", "index is 'abc'"),
        ("missing-index", "no index"),
        ("invalid-size", "size is 'abc'"),
        ("missing-size", "no size"),
        ("hash-empty-namespace", "no Hash of the SHA-384 namespace"),
        ("missing-colloquial-version", "root is ReferenceIntegrityManifest"),
    ],
)
def test_what_is_wrong_with_an_unsigned_manifest_is_named_too(vectors: Path, name: str, problem: str) -> None:
    data = (vectors / f"nvidia-rim/neg-parse-{name}/rim.swidtag").read_bytes()
    _, log = judge(data, anchors=RimAnchors.nvidia())
    (content,) = [finding for finding in log.findings if finding.code == "RIM_CONTENT"]
    assert problem in content.actual
