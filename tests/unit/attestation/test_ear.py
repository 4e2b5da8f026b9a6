from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation import ear
from attestation.composite import BINDING_KEY_AND_DEVICES, NodeResult
from attestation.errors import ResultError
from attestation.findings import Severity
from attestation.node_checks import SLOT
from attestation.snp import checks
from attestation.types import DeviceResult, HardwareIdentity

NOW = 1_790_000_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NODE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
KEYS = {"result-1": KEY.public_key()}
INFORMING = replace(checks.CRL_MISSING.finding(expected="a CRL", actual="none"), severity=Severity.INFORM)
FAILING = checks.DEBUG.finding(expected="off", actual="on")


def _device(slot: str, *findings: Any, identity: HardwareIdentity | None = None) -> DeviceResult:
    return DeviceResult(
        slot=slot,
        scheme="snp" if slot == "cpu0" else "nvgpu",
        claims={"report_data": "00"},
        identity=identity or HardwareIdentity("test", slot.encode().hex()),
        findings=findings,
        collateral_age={"b": 2, "a": 1},
    )


RESULT = NodeResult(
    devices=(_device("cpu0", INFORMING), _device("gpu0")),
    findings=(),
    passed=(),
    binding_level=BINDING_KEY_AND_DEVICES,
)
VECTORS = {"cpu0": {"hardware": 2, "instance-identity": 2}, "gpu0": {"executables": 32, "hardware": 2}}


def _claims(result: NodeResult = RESULT, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "trust_vectors": VECTORS,
        "policy_id": "ab" * 32,
        "verifier": "broker.example",
        "nonce": bytes(56),
        "signing_key": NODE_KEY.public_key(),
        "now": NOW,
        "lifetime": 300,
        **changes,
    }
    return ear.build_claims(result, **arguments)


def _token(claims: dict[str, Any] | None = None) -> str:
    return ear.sign(_claims() if claims is None else claims, KEY, key_id="result-1")


def _verify(token: str, **changes: Any) -> ear.EarClaims:
    return ear.verify(token, **{"keys": KEYS, "issuer": "broker.example", "now": NOW, **changes})


def test_the_claims_of_a_result() -> None:
    claims = _claims()
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 300)
    assert "jti" not in claims
    assert claims["cnf"]["jwk"] == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": base64.urlsafe_b64encode(NODE_KEY.public_key().public_bytes_raw()).rstrip(b"=").decode(),
    }
    assert list(claims["submods"]) == ["cpu0", "gpu0"]
    assert claims["submods"]["cpu0"] == {
        "ear.status": "affirming",
        "ear.appraisal-policy-id": "ab" * 32,
        "ear.trustworthiness-vector": {"instance-identity": 2, "hardware": 2},
        "keystead.scheme": "snp",
        "keystead.identity": "test:63707530",
        "keystead.findings": [INFORMING.to_json()],
        "keystead.collateral-age": {"a": 1, "b": 2},
        "keystead.simulated": False,
    }
    assert claims["submods"]["gpu0"]["ear.status"] == "warning"
    assert ear.worst_status(claims) is ear.Tier.WARNING


def test_same_inputs_give_byte_identical_claims_and_tokens() -> None:
    shuffled = replace(RESULT, devices=tuple(reversed(RESULT.devices)))
    assert ear.canonical(_claims()) == ear.canonical(_claims(shuffled))
    assert _token() == _token(_claims(shuffled))
    assert _token() != _token(_claims(now=NOW + 1))


def test_a_verified_token_says_what_was_signed() -> None:
    claims = _verify(_token())
    assert claims.issuer == "broker.example"
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 300)
    assert claims.nonce == bytes(56)
    assert claims.signing_key == NODE_KEY.public_key().public_bytes_raw()
    assert claims.policy_id == "ab" * 32
    assert claims.status is ear.Tier.WARNING
    assert claims.binding_level == BINDING_KEY_AND_DEVICES
    assert claims.identities == {"cpu0": "test:63707530", "gpu0": "test:67707530"}
    assert claims.codes == ()
    assert not claims.simulated


def test_a_failing_finding_contraindicates_whatever_the_policy_says() -> None:
    device = replace(RESULT, devices=(RESULT.devices[0], _device("gpu0", FAILING)))
    claims = _claims(device)
    assert claims["submods"]["gpu0"]["ear.status"] == "contraindicated"
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"
    assert _verify(_token(claims)).codes == ("SNP_DEBUG_ALLOWED",)
    node = replace(RESULT, findings=(SLOT.finding(expected="gpu0", actual="gpu9"),))
    assert {each["ear.status"] for each in _claims(node)["submods"].values()} == {"contraindicated"}
    assert _verify(_token(_claims(node))).codes == ("NODE_SLOT",)


def test_a_device_without_a_vector_is_not_affirmed() -> None:
    claims = _claims(trust_vectors={"cpu0": {"hardware": 2}})
    assert claims["submods"]["gpu0"]["ear.status"] == "none"
    assert "ear.trustworthiness-vector" not in claims["submods"]["gpu0"]
    assert _claims(trust_vectors={})["submods"]["cpu0"]["ear.status"] == "none"


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        (-1, "none"),
        (0, "none"),
        (1, "none"),
        (2, "affirming"),
        (31, "affirming"),
        (-2, "affirming"),
        (-32, "affirming"),
        (32, "warning"),
        (95, "warning"),
        (-33, "warning"),
        (-96, "warning"),
        (96, "contraindicated"),
        (127, "contraindicated"),
        (-97, "contraindicated"),
        (-128, "contraindicated"),
    ],
)
def test_tiers(value: int, tier: str) -> None:
    assert ear.tier_of(value).text == tier
    assert _claims(trust_vectors={"cpu0": {"hardware": value}})["submods"]["cpu0"]["ear.status"] == tier


@pytest.mark.parametrize(
    "vectors",
    [{"gpu1": {"hardware": 2}}, {"cpu0": {"trust": 2}}, {"cpu0": {"hardware": 128}}, {"cpu0": {"hardware": -129}}],
)
def test_a_vector_that_does_not_fit_is_refused(vectors: dict[str, dict[str, int]]) -> None:
    with pytest.raises(ResultError):
        _claims(trust_vectors=vectors)


def test_floats_are_refused() -> None:
    with pytest.raises(ResultError, match="floats"):
        ear.canonical({"a": [{"b": 1.0}]})  # type: ignore[list-item]  # what the check is there for
    with pytest.raises(ResultError):
        ear.canonical({"a": 1 << 60})


def test_simulated_devices_mark_the_result() -> None:
    simulated = replace(RESULT, devices=(RESULT.devices[0], replace(RESULT.devices[1], simulated=True)))
    assert _verify(_token(_claims(simulated))).simulated


@pytest.mark.parametrize(
    "changes",
    [
        {"now": NOW - 1},
        {"now": NOW + 300},
        {"issuer": "other.example"},
        {"keys": {}},
        {"keys": {"result-2": KEY.public_key()}},
        {"keys": {"result-1": NODE_KEY.public_key()}},
    ],
)
def test_a_token_for_another_time_issuer_or_key_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ResultError):
        _verify(_token(), **changes)


def test_any_altered_character_is_refused() -> None:
    token = _token()
    for at in (*range(0, len(token), 37), len(token) - 1):
        altered = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(ResultError):
            _verify(altered)


def _signed(payload: bytes, headers: dict[str, Any] | None = None, key: Any = KEY, algorithm: str = "EdDSA") -> str:
    return jwt.PyJWS().encode(
        payload, key, algorithm=algorithm, headers=headers or {"typ": "eat+jwt", "kid": "result-1"}
    )


def test_only_canonical_payloads_are_read() -> None:
    payload = ear.canonical(_claims())
    assert _verify(_signed(payload))
    spaced = json.dumps(json.loads(payload)).encode()
    twice = payload[:-1] + b',"iss":"broker.example"}'
    fraction = payload.replace(b'"iat":1790000000', b'"iat":1790000000.0')
    for other in (spaced, twice, fraction, b"[]", b"{", b"\xff", payload.replace(b'"iat":1790000000', b'"iat":NaN')):
        with pytest.raises(ResultError):
            _verify(_signed(other))


@pytest.mark.parametrize(
    "headers",
    [{"typ": "JWT", "kid": "result-1"}, {"typ": "eat+jwt"}, {"typ": "eat+jwt", "kid": "result-1", "jku": "https://x"}],
)
def test_other_headers_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(ResultError):
        _verify(_signed(ear.canonical(_claims()), headers))


def test_other_algorithms_are_refused() -> None:
    payload = ear.canonical(_claims())
    with pytest.raises(ResultError):
        _verify(_signed(payload, key=None, algorithm="none"))
    with pytest.raises(ResultError):
        _verify(_signed(payload, key=b"k" * 32, algorithm="HS256"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eat_profile", "tag:example"),
        ("iat", "1790000000"),
        ("iat", True),
        ("exp", None),
        ("submods", []),
        ("submods", {}),
        ("submods", {"cpu0": {"ear.status": "affirming"}}),
        ("cnf", {}),
        ("cnf", {"jwk": {"kty": "EC", "crv": "P-256", "x": "AA"}}),
        ("cnf", {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}}),
        ("cnf", {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "!!"}}),
        ("eat_nonce", "AB"),
        ("eat_nonce", 1),
        ("keystead.simulated", "false"),
        ("keystead.findings", {}),
        ("keystead.findings", ["x"]),
        ("keystead.binding-level", None),
    ],
)
def test_claims_of_another_shape_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ResultError):
        _verify(_token({**_claims(), name: value}))


def test_a_status_that_is_no_tier_is_refused() -> None:
    claims = _claims()
    claims["submods"]["cpu0"]["ear.status"] = "good"
    with pytest.raises(ResultError, match="good"):
        _verify(_token(claims))


def test_submodules_under_two_policies_are_refused() -> None:
    claims = _claims()
    claims["submods"]["cpu0"]["ear.appraisal-policy-id"] = "cd" * 32
    with pytest.raises(ResultError, match="policies"):
        _verify(_token(claims))


def test_a_token_that_is_too_long_is_refused() -> None:
    with pytest.raises(ResultError, match="at most"):
        _verify("a" * (ear.MAX_TOKEN_SIZE + 1))


def test_no_submodule_is_the_worst_status() -> None:
    assert ear.worst_status({"submods": {}}) is ear.Tier.CONTRAINDICATED
