"""Appraisal records and packages: any bytes are a value or a typed error, and what is written reads back the same."""

from __future__ import annotations

import base64
import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.composite import NodeEvidence, NodeResult
from attestation.types import Evidence
from keybroker import appraisal_record
from keybroker.appraisal_record import AppraisalRecord, Circumstances, Package
from keybroker.errors import AppraisalRecordError
from keybroker.judgement import Judgement
from keybroker.trust import Material, TrustFile
from keystead.binding import sha256
from policy.decision import Decision, Denial

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
BLOBS = st.binary(max_size=60)
EVIDENCE = st.builds(Evidence, TEXTS, TEXTS, BLOBS, st.lists(BLOBS, max_size=4).map(tuple))
NODES = st.builds(NodeEvidence, cpu=EVIDENCE, devices=st.lists(EVIDENCE, max_size=3).map(tuple))
MATERIALS = st.builds(
    Material,
    st.dictionaries(TEXTS, st.lists(st.builds(TrustFile, TEXTS, BLOBS), max_size=3).map(tuple), max_size=3),
    st.dictionaries(TEXTS, st.one_of(st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), TEXTS), max_size=3),
)
DATA = st.dictionaries(TEXTS, st.one_of(TEXTS, st.booleans(), st.none(), st.integers(0, 2**53 - 1)), max_size=3)
CLAIMS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(0, 9), st.none()), max_size=3)
DENIALS = st.lists(st.builds(Denial, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple)
SEGMENTS = st.binary(min_size=1, max_size=30).map(lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode())


@st.composite
def packages(draw: st.DrawFn) -> tuple[Package, NodeEvidence, Material]:
    """A package as a broker makes it, of anything whatever, and what it was made of."""
    node, material = draw(NODES), draw(MATERIALS)
    claims = json.dumps(draw(CLAIMS), ensure_ascii=False).encode()
    payload = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
    deny = draw(DENIALS)
    certificates = appraisal_record.certificate_documents((node.cpu, *node.devices))
    trust = appraisal_record.trust_documents(material)
    policy = appraisal_record.policy_documents(draw(BLOBS), draw(DATA))
    judgement = Judgement(
        result=NodeResult((), (), (), "none"),
        document=draw(BLOBS),
        decision=Decision(allow=not deny, deny=deny, obligations=(), policy_version="1"),
        claims={},
    )
    data = appraisal_record.record_bytes(
        evidence=node,
        runtime_data=draw(BLOBS),
        judgement=judgement,
        result=f"{draw(SEGMENTS)}.{payload}.{draw(SEGMENTS)}",
        certificates=certificates.digest,
        trust=trust.digest,
        policy=policy.digest,
        verifier=draw(TEXTS),
        lifetime=draw(st.integers(0, 2**53 - 1)),
        now=draw(st.integers(0, 2**53 - 1)),
    )
    documents = {**certificates.contents, **trust.contents, **policy.contents}
    return Package.of(data, documents), node, material


@given(packages())
def test_what_is_written_reads_back(made: tuple[Package, NodeEvidence, Material]) -> None:
    package, node, material = made
    data = package.to_bytes()
    again = Package.parse(data)
    assert again == package
    assert again.to_bytes() == data
    assert again.evidence() == node
    assert dict(again.material().files) == dict(material.files)
    assert dict(again.material().options) == dict(material.options)
    stored = package.documents[package.record.digest]
    assert appraisal_record.decompress(appraisal_record.compress(stored)) == stored


@given(packages(), st.data())
def test_one_changed_byte_is_refused_or_changes_nothing_that_is_believed(
    made: tuple[Package, NodeEvidence, Material], data: st.DataObject
) -> None:
    package, _, _ = made
    original = package.to_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        read = Package.parse(bytes(changed))
    except AppraisalRecordError:
        return
    pytest.fail(f"byte {place} is not covered: {read}")


@pytest.mark.parametrize(
    "parse",
    [
        AppraisalRecord.parse,
        Package.parse,
        Circumstances.parse,
        appraisal_record.named_by,
        appraisal_record.decompress,
        lambda data: appraisal_record.trust_material(data, MappingProxyType({})),
        lambda data: appraisal_record.appraisal_policy(data, MappingProxyType({})),
    ],
)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(("type", "documents", "record", "files", "chains", "x")), inner)
            ),
            max_leaves=9,
        ).map(lambda value: json.dumps(value).encode("utf-8")),
        st.sampled_from(
            (
                b"[" * 100_000,
                b'{"type":"keystead-appraisal/v1"}',
                b'{"type":"\\ud800"}',
                b'{"type":"keystead-appraisal-package/v1","documents":{},"record":"\\ud800","decision":null,"proof":null}',
                b'{"chains":[["zz"]],"type":"keystead-appraisal-certificates/v1"}',
            )
        ),
    )
)
def test_any_bytes_are_refused_by_name(parse: Any, data: bytes) -> None:
    with pytest.raises(AppraisalRecordError):
        parse(data)


def test_a_compressed_record_of_any_length_is_read_in_bounds() -> None:
    bomb = appraisal_record.compress(bytes(appraisal_record.MAX_RECORD + 1))
    for bad in (bomb, appraisal_record.compress(b"x")[:-1], appraisal_record.compress(b"x") + b"x", b""):
        with pytest.raises(AppraisalRecordError):
            appraisal_record.decompress(bad)


def test_a_package_without_what_it_names_is_refused() -> None:
    documents = appraisal_record.policy_documents(b"pack", {})
    trust = appraisal_record.trust_documents(Material())
    whole = Circumstances(
        trust=trust.digest, policy=documents.digest, documents={**documents.contents, **trust.contents}
    )
    assert Circumstances.parse(whole.to_bytes()).appraisal_policy().bundle == b"pack"
    for digest in whole.documents:
        left = {each: content for each, content in whole.documents.items() if each != digest}
        with pytest.raises(AppraisalRecordError, match="missing"):
            Circumstances.parse(Circumstances(trust=trust.digest, policy=documents.digest, documents=left).to_bytes())
    more = {**whole.documents, sha256(b"x"): b"x"}
    with pytest.raises(AppraisalRecordError, match="nothing names it"):
        Circumstances.parse(Circumstances(trust=trust.digest, policy=documents.digest, documents=more).to_bytes())
