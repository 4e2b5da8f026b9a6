"""Properties of the policy room: any document is decided or refused, and never allowed by accident."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policy.bundle import Bundle
from policy.decision import Decision
from policy.documents import MAX_INTEGER, encode_document, read_json_object
from policy.engine import PolicyEngine
from policy.errors import BundleError, PolicyInputError, PolicyUndecidedError
from policy.inputs import AppraisalInput, ReleaseInput
from policy.sources import COMPILED, default_bundle

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT


def trees(leaves: st.SearchStrategy[Any] = LEAVES) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
    )


JSON = trees()
OBJECTS = st.dictionaries(TEXT, JSON, max_size=5)

# Few values, so that those which must be equal often are.
NAMES = st.sampled_from(["a", "b"])
LISTS = st.lists(NAMES, max_size=2)
TIMES = st.integers(0, 3)
AREAS = st.lists(st.sampled_from(["DE", "EU", "US", "*", "DE-BY"]), max_size=2)
CLAUSES = st.lists(AREAS, max_size=2)
SETS = st.none() | LISTS
BOUNDS = st.none() | st.integers(1, 3)
ASSURANCES = ["simulated", "cpu", "cpu-and-devices"]
DUTIES = st.fixed_dictionaries({}, optional={"no_egress": st.just({}), "output_ceiling": st.just({"tokens": 1})})
SITES = st.fixed_dictionaries(
    {
        "site_id": NAMES,
        "jurisdiction": st.sampled_from(["DE", "DE-BY", "US"]),
        "exposures": st.lists(st.sampled_from(["DE", "DE-BY", "US"]), max_size=2),
        "certifications": LISTS,
        "network_zone": NAMES,
        "state": st.sampled_from(["active", "retired"]),
        "valid_from": TIMES,
        "valid_until": TIMES,
    }
)
RELEASES = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(["authorize", "acquire", "renew"]),
        "now": TIMES,
        "grant": st.fixed_dictionaries(
            {
                "grant_id": NAMES,
                "tenant": NAMES,
                "job_uid": NAMES,
                "scheduler": NAMES,
                "assets": st.lists(st.sampled_from(["a@1", "b@1"]), max_size=2),
                "purposes": LISTS,
                "nodes": LISTS,
                "sites": LISTS,
                "node_ceiling": TIMES,
                "not_before": TIMES,
                "not_after": TIMES,
                "project": st.just("") | NAMES,
                "user": st.just("") | NAMES,
                "stage": st.just("") | NAMES,
                "image": st.just("") | NAMES,
                "network": st.sampled_from(["", "none", "fabric", "egress"]),
            }
        ),
        "job": st.fixed_dictionaries({"state": st.sampled_from(["open", "preempted", "closed"]), "live_nodes": LISTS}),
        "asset": st.fixed_dictionaries(
            {
                "asset": NAMES,
                "version": st.integers(1, 2),
                "tenant": NAMES,
                "kind": NAMES,
                "state": st.sampled_from(["active", "revoked"]),
                "classification": TIMES,
                "purposes": LISTS,
                "residency": st.fixed_dictionaries({"allowed": CLAUSES, "forbidden": AREAS}),
                "exposure": st.fixed_dictionaries({"allowed": CLAUSES, "forbidden": AREAS}),
                "sites": SETS,
                "retain_until": st.none() | TIMES,
                "assurance": st.sampled_from(ASSURANCES),
                "node_ceiling": BOUNDS,
                "copy_ceiling": BOUNDS,
                "projects": SETS,
                "users": SETS,
                "stages": SETS,
                "images": SETS,
                "networks": st.none() | st.lists(st.sampled_from(["none", "fabric", "egress"]), max_size=2),
                "obligations": DUTIES,
            }
        ),
        "holders": st.none() | st.fixed_dictionaries({"nodes": TIMES, "leases": TIMES}),
        "budgets": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["key_seconds", "opens", "tokens_served"]),
                    "scope": st.sampled_from(["asset", "job"]),
                    "limit": TIMES,
                    "spent": TIMES,
                }
            ),
            max_size=2,
        ),
        "reporting": st.none() | st.fixed_dictionaries({"every": TIMES, "age": TIMES}),
        "node": st.none()
        | st.fixed_dictionaries(
            {
                "node_id": NAMES,
                "state": st.sampled_from(["active", "retired"]),
                "custody": st.sampled_from(["installed", "in-transit"]),
                "claimed_node_id": NAMES,
                "device_set_matches": st.booleans(),
            }
        ),
        "site": st.none() | SITES,
        "attestation": st.none()
        | st.fixed_dictionaries(
            {
                "allow": st.booleans(),
                "status": st.sampled_from([0, 2, 32, 96]),
                "simulated": st.booleans(),
                "policy_digest": NAMES,
                "codes": LISTS,
                "age": st.integers(899, 901),
                "assurance": st.sampled_from(ASSURANCES),
                "host_data": st.just("") | NAMES,
            }
        ),
        "candidate_sites": st.none() | st.lists(SITES, max_size=2),
    }
)
ALLOWED: dict[str, Any] = {
    "stage": "acquire",
    "now": 1,
    "grant": {
        "grant_id": "a",
        "tenant": "a",
        "job_uid": "a",
        "scheduler": "a",
        "assets": ["a@1"],
        "purposes": ["a"],
        "nodes": ["a"],
        "sites": ["a"],
        "node_ceiling": 1,
        "not_before": 0,
        "not_after": 3,
        "project": "a",
        "user": "a",
        "stage": "a",
        "image": "a",
        "network": "fabric",
    },
    "job": {"state": "open", "live_nodes": []},
    "asset": {
        "asset": "a",
        "version": 1,
        "tenant": "a",
        "kind": "a",
        "state": "active",
        "classification": 0,
        "purposes": ["a"],
        "residency": {"allowed": [["EU"], ["DE", "US"]], "forbidden": ["US"]},
        "exposure": {"allowed": [["EU"]], "forbidden": ["US"]},
        "sites": ["a"],
        "retain_until": 3,
        "assurance": "cpu",
        "node_ceiling": 1,
        "copy_ceiling": 2,
        "projects": ["a"],
        "users": ["a", "b"],
        "stages": ["a"],
        "images": ["a"],
        "networks": ["none", "fabric"],
        "obligations": {"no_egress": {}},
    },
    "holders": {"nodes": 1, "leases": 2},
    "budgets": [{"name": "opens", "scope": "asset", "limit": 2, "spent": 1}],
    "reporting": {"every": 1, "age": 2},
    "node": {
        "node_id": "a",
        "state": "active",
        "custody": "installed",
        "claimed_node_id": "a",
        "device_set_matches": True,
    },
    "site": {
        "site_id": "a",
        "jurisdiction": "DE-BY",
        "exposures": ["DE"],
        "certifications": [],
        "network_zone": "",
        "state": "active",
        "valid_from": 0,
        "valid_until": 3,
    },
    "attestation": {
        "allow": True,
        "status": 2,
        "simulated": False,
        "policy_digest": "a",
        "codes": [],
        "age": 0,
        "assurance": "cpu-and-devices",
        "host_data": "a",
    },
    "candidate_sites": None,
}


@cache
def engine(name: str) -> PolicyEngine:
    return PolicyEngine(default_bundle(name))


def lies_in(jurisdiction: str, area: str) -> bool:
    country = jurisdiction[:2]
    return area in {"*", jurisdiction, country} or (area == "EU" and country == "DE")


def expected(document: dict[str, Any]) -> bool:
    """The release rules once more, in Python and without looking at Rego."""
    now, grant, asset = document["now"], document["grant"], document["asset"]
    exposure = asset["exposure"]

    def within(place: str, areas: dict[str, Any]) -> bool:
        return all(any(lies_in(place, area) for area in clause) for clause in areas["allowed"]) and not any(
            lies_in(place, area) or area.startswith(place + "-") for area in areas["forbidden"]
        )

    def permitted(sets: str, name: str) -> bool:
        return asset[sets] is None or grant[name] in asset[sets]

    def below(ceiling: str, name: str) -> bool:
        most, holders = asset[ceiling], document["holders"]
        return most is None or (holders is not None and holders[name] <= most)

    def left(budget: dict[str, Any]) -> bool:
        # A renewal opens nothing again.
        return (document["stage"] == "renew" and budget["name"] == "opens") or budget["spent"] < budget["limit"]

    def reported() -> bool:
        reporting = document["reporting"]
        return document["stage"] != "renew" or reporting is None or reporting["age"] <= 2 * reporting["every"]

    def stands(site: dict[str, Any]) -> bool:
        place = site["jurisdiction"]
        return (
            site["state"] == "active"
            and site["valid_from"] <= now < site["valid_until"]
            and (not grant["sites"] or site["site_id"] in grant["sites"])
            and (asset["sites"] is None or site["site_id"] in asset["sites"])
            and asset["residency"]["allowed"] != []
            and within(place, asset["residency"])
            and (exposure == {"allowed": [], "forbidden": []} or site["exposures"] != [])
            and all(within(law, exposure) for law in site["exposures"])
        )

    general = (
        grant["not_before"] <= now < grant["not_after"]
        and document["job"]["state"] == "open"
        and grant["tenant"] == asset["tenant"]
        and f"{asset['asset']}@{asset['version']}" in grant["assets"]
        and asset["state"] == "active"
        and bool(grant["purposes"])
        and set(grant["purposes"]) <= set(asset["purposes"])
        and all(permitted(f"{name}s", name) for name in ("project", "user", "stage", "image", "network"))
        and not ("no_egress" in asset["obligations"] and grant["network"] not in ("none", "fabric"))
        and (asset["retain_until"] is None or now < asset["retain_until"])
        and all(left(budget) for budget in document["budgets"])
        and reported()
    )
    if document["stage"] == "authorize":
        candidates = document["candidate_sites"]
        return general and (candidates is None or any(stands(site) for site in candidates))
    node, site, attestation = document["node"], document["site"], document["attestation"]
    if node is None or site is None or attestation is None:
        return False
    return (
        general
        and stands(site)
        and node["state"] == "active"
        and node["claimed_node_id"] == node["node_id"]
        and node["custody"] == "installed"
        and node["device_set_matches"]
        and (not grant["nodes"] or node["node_id"] in grant["nodes"])
        and len({*document["job"]["live_nodes"], node["node_id"]}) <= grant["node_ceiling"]
        and attestation["allow"]
        and 2 <= attestation["status"] <= 32
        and attestation["age"] <= 900
        and not attestation["simulated"]
        and ASSURANCES.index(attestation["assurance"]) >= ASSURANCES.index(asset["assurance"])
        and (asset["images"] is None or grant["image"] == attestation["host_data"] != "")
        and below("node_ceiling", "nodes")
        and below("copy_ceiling", "leases")
    )


@given(RELEASES)
def test_release_decides_as_its_rules_say(document: dict[str, Any]) -> None:
    decision = engine("release").evaluate(document)
    assert decision.allow == expected(document)
    assert decision.allow == (not decision.deny)


@given(st.data())
def test_release_decides_as_its_rules_say_around_what_it_allows(data: st.DataObject) -> None:
    """From an allowed input a few members are exchanged, so that about half of the cases are still allowed."""
    document = json.loads(json.dumps(ALLOWED))
    other = data.draw(RELEASES)
    for name in data.draw(st.lists(st.sampled_from(sorted(ALLOWED)), max_size=3)):
        if isinstance(document[name], dict) and isinstance(other[name], dict):
            member = data.draw(st.sampled_from(sorted(document[name])))
            document[name][member] = other[name][member]
        else:
            document[name] = other[name]
    assert engine("release").evaluate(document).allow == expected(document)


def test_the_allowed_input_is_allowed() -> None:
    assert expected(ALLOWED)
    assert engine("release").evaluate(ALLOWED).allow


@pytest.mark.parametrize(("name", "model"), [("release", ReleaseInput), ("appraisal", AppraisalInput)])
@given(document=OBJECTS)
def test_any_document_is_denied_or_undecided(
    name: str, model: type[ReleaseInput | AppraisalInput], document: dict[str, Any]
) -> None:
    try:
        decision = engine(name).evaluate(document)
    except PolicyUndecidedError:
        return
    assert decision.deny
    assert not decision.allow
    with pytest.raises(ValidationError):
        model.model_validate_json(json.dumps(document))


@given(st.data())
def test_a_spoiled_release_is_never_allowed_unless_it_is_an_input(data: st.DataObject) -> None:
    """Any member becomes any JSON: what the pack then allows is an input that the model accepts."""
    document = json.loads(json.dumps(ALLOWED))
    place, path = document, []
    while True:
        name = data.draw(st.sampled_from(sorted(place)))
        path.append(name)
        if not isinstance(place[name], dict) or data.draw(st.booleans()):
            break
        place = place[name]
    place[name] = data.draw(JSON)
    decision = engine("release").evaluate(document)
    if decision.allow:
        # Names of the wrong length or form are the model's to refuse; types are the pack's too.
        # At this stage candidate sites are not looked at, and any list of them may stand there.
        if path != ["candidate_sites"]:
            assert type(place[name]) is type(_original(path))
        assert expected(document)


def _original(path: list[str]) -> object:
    value: Any = ALLOWED
    for name in path:
        value = value[name]
    return list(value) if isinstance(value, list) else value


@given(OBJECTS)
def test_encoding_is_canonical_and_read_back(document: dict[str, Any]) -> None:
    data = encode_document(document, what="x")
    assert data == rfc8785.dumps(document)
    assert read_json_object(data, what="x") == document


@given(st.dictionaries(TEXT, trees(LEAVES | st.floats() | st.integers() | st.binary(max_size=4)), max_size=5))
def test_anything_is_encoded_or_refused(document: dict[str, Any]) -> None:
    try:
        data = encode_document(document, what="x")
    except PolicyInputError:
        return
    assert read_json_object(data, what="x") == json.loads(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    try:
        document = read_json_object(data, what="x")
    except PolicyInputError:
        return
    assert read_json_object(encode_document(document, what="x"), what="x") == document


@given(JSON)
def test_any_value_is_a_decision_or_none(value: Any) -> None:
    with pytest.raises(PolicyUndecidedError):
        Decision.from_document(value)


@given(st.data())
def test_any_bytes_are_a_bundle_or_refused(data: st.DataObject) -> None:
    raw = bytearray((COMPILED / "release.tar.gz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        bundle = Bundle.load(bytes(raw))
    except BundleError:
        return
    # Only gzip's own header (time, system) may differ without being noticed.
    assert bundle.digest == default_bundle("release").digest


@given(st.binary(max_size=300))
def test_any_short_bytes_are_no_bundle(raw: bytes) -> None:
    with pytest.raises(BundleError):
        Bundle.load(raw)
