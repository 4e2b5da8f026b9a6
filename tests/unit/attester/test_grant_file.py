"""Grant files: every file that is none is refused by one error."""

from __future__ import annotations

import base64
import json

import pytest

from attester.errors import CredentialError
from attester.grant_file import FORMAT, MAX_SIZE, GrantFile
from keystead.binding import AssetRef, JobGrant

GRANT = JobGrant(
    broker="broker",
    grant_id="g1",
    tenant="acme",
    job_uid="job-1",
    scheduler="slurm",
    assets=(AssetRef("acme/llm", 1),),
    purposes=("inference",),
    nodes=(),
    sites=(),
    node_ceiling=1,
    not_before=1,
    not_after=2,
).to_bytes()
DOCUMENT = {
    "format": FORMAT,
    "broker": "broker",
    "grant": base64.b64encode(GRANT).decode(),
    "signature": base64.b64encode(bytes(64)).decode(),
    "key_id": "k",
    "nonce": base64.b64encode(bytes(56)).decode(),
}


def test_what_was_written_is_read_back() -> None:
    grant = GrantFile.parse(json.dumps(DOCUMENT).encode())
    assert GrantFile.parse(grant.to_bytes()) == grant
    assert grant.signed.content.job_uid == "job-1"


@pytest.mark.parametrize("member", ["broker", "key_id"])
def test_half_a_surrogate_pair_is_refused(member: str) -> None:
    with pytest.raises(CredentialError, match=member):
        GrantFile.parse(json.dumps(DOCUMENT | {member: "\ud800"}).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"format":' * 100_000,
        b"9" * 100_000,
        b" " * (MAX_SIZE + 1),
        json.dumps(DOCUMENT | {"key_id": 5}).encode(),
        json.dumps(DOCUMENT | {"nonce": "\ud800"}).encode(),
        json.dumps(DOCUMENT | {"grant": "AAAA"}).encode(),
        json.dumps(DOCUMENT | {"more": ""}).encode(),
    ],
)
def test_what_is_no_grant_file(data: bytes) -> None:
    with pytest.raises(CredentialError):
        GrantFile.parse(data)
