"""Whatever stands in a description, it becomes a draft that reads back, or an error that says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keystead.cli.asset_kind import Kind
from keystead.cli.descriptions.document import DescriptionError
from keystead.cli.descriptions.draft import Draft, DraftInput, read_description

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=12)
WORDS = st.sampled_from(
    [
        "sc:name",
        "name",
        "@id",
        "@value",
        "@language",
        "url",
        "sha256",
        "contentUrl",
        "contentSize",
        "facets",
        "version",
        "datasetVersion",
        "namespace",
        "inputs",
        "@type",
        "type",
        "lineage",
        "containedIn",
        "encodingFormat",
    ]
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["cr:FileObject", "cr:FileSet", "ab" * 32, "data/a.csv", "https://h/a", "git+https"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
CONTEXTS = st.none() | st.dictionaries(
    st.sampled_from(["name", "sha256", "cr", "sc", "@vocab", "url"]),
    st.sampled_from(["sc:name", "cr:sha256", "https://schema.org/", "@type", "x:y", ""]) | VALUES,
    max_size=3,
)


@st.composite
def croissants(draw: st.DrawFn) -> dict[str, Any]:
    names = ["name", "version", "license", "url", "isBasedOn", "prov:wasDerivedFrom", "distribution", "creator"]
    return {
        "@context": draw(CONTEXTS),
        "@type": "sc:Dataset",
        "dct:conformsTo": "http://mlcommons.org/croissant/1.1",
    } | draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=4))


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    data_sets = st.fixed_dictionaries({"namespace": st.text(max_size=4), "name": SCALARS}, optional={"facets": VALUES})
    members: dict[str, Any] = {"job": VALUES, "inputs": VALUES | st.lists(data_sets, max_size=3)}
    members |= {"outputs": VALUES | st.lists(data_sets, max_size=3), "dataset": VALUES | data_sets, "run": VALUES}
    schema = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    return {"schemaURL": schema, "producer": "urn:x"} | draw(st.fixed_dictionaries({}, optional=members))


def told(read: Callable[[bytes], object], data: bytes) -> str:
    """How `data` is refused; empty where it is read."""
    try:
        read(data)
    except DescriptionError as error:
        return str(error)
    return ""


def becomes_a_draft(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    refusal = told(read_description, data)
    assert refusal.isprintable()
    if refusal:
        return
    description = read_description(data)
    inputs = [DraftInput(name=name) for name in description.inputs]
    draft = Draft.of(description, asset="acme/x", kind=Kind.DATASET, inputs=inputs)
    assert Draft.parse(draft.to_bytes()) == draft
    assert read_description(data) == description


@given(croissants())
def test_croissant(document: dict[str, Any]) -> None:
    becomes_a_draft(document)


@given(events())
def test_openlineage(document: dict[str, Any]) -> None:
    becomes_a_draft(document)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    assert told(read_description, data)
    assert told(Draft.parse, data)
