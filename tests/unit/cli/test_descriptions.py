"""Descriptions that others wrote: what is read, what is left out and said so, what is refused and where it stands."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from audit.openlineage import openlineage_events
from audit.query import Entry
from audit.records import Actor, Kind, Record, Result
from keystead.cli.asset import Kind as AssetKind
from keystead.cli.descriptions.document import (
    MAX_DESCRIPTION,
    MAX_FILES,
    MAX_LEFT_OUT,
    DescribedFile,
    Description,
    DescriptionError,
)
from keystead.cli.descriptions.draft import Draft, DraftInput, read_description

DIGEST = "ab" * 32
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "recordSet": "cr:recordSet",
    "data": {"@id": "cr:data", "@type": "@json"},
    "name": {"@container": "@language"},
}


def croissant(**changes: Any) -> dict[str, Any]:
    """A description; a change to None takes a member out."""
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "Notes",
        "version": "1.2.0",
        "license": "https://creativecommons.org/licenses/by/4.0/",
        "url": "https://data.example/notes",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "train",
                "name": "Training part",
                "contentUrl": "https://data.example/notes/train%20set.csv?raw=1",
                "contentSize": "8813 B",
                "encodingFormat": "text/csv",
                "sha256": DIGEST.upper(),
            },
            {"@type": "cr:FileObject", "@id": "b", "contentUrl": "./data/test.csv", "contentSize": 12, "md5": "0"},
        ],
        "isBasedOn": [{"@id": "https://data.example/raw"}, "raw-2"],
        "prov:wasDerivedFrom": {"@type": "sc:Dataset", "name": "raw-3"},
        "recordSet": [],
        "creator": {"@type": "sc:Person", "name": "Ada"},
    } | changes
    return {name: value for name, value in document.items() if value is not None}


def read(document: object, **options: Any) -> Description:
    return read_description(json.dumps(document).encode(), **options)


def refused(document: object, where: str, why: str, **options: Any) -> None:
    with pytest.raises(DescriptionError) as caught:
        read(document, **options)
    assert str(caught.value).startswith(where), caught.value
    assert why in str(caught.value), caught.value


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_croissant(version: str) -> None:
    document = croissant(conformsTo=f"http://mlcommons.org/croissant/{version}")
    assert read(document) == Description(
        form=f"croissant-{version}",
        digest=hashlib.sha256(json.dumps(document).encode()).hexdigest(),
        name="Notes",
        version="1.2.0",
        licences=("https://creativecommons.org/licenses/by/4.0/",),
        sources=("https://data.example/notes",),
        files=(
            DescribedFile(name="data/test.csv", size=12),
            DescribedFile(
                name="train set.csv", size=8813, sha256=DIGEST, url="https://data.example/notes/train%20set.csv?raw=1"
            ),
        ),
        inputs=("https://data.example/raw", "raw-2", "raw-3"),
        left_out=("creator", "distribution[].md5", "recordSet"),
    )


def test_a_repository_an_archives_files_and_patterns_are_no_files() -> None:
    """The shape in which large hubs publish: a repository with a digest that is none, and patterns inside it."""
    repository = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "contentUrl": "https://hub.example/notes",
        "encodingFormat": "git+https",
        "sha256": "https://hub.example/issues/80",
    }
    inside = {"@type": "cr:FileObject", "@id": "a", "containedIn": {"@id": "x"}, "contentUrl": "a.csv", "sha256": "no"}
    patterns = {"@type": "cr:FileSet", "@id": "p", "containedIn": {"@id": "repo"}, "includes": "*.parquet"}
    about = {"@type": "cr:FileObject", "@id": "big.bin", "contentSize": "97.73 TiB"}
    description = read(croissant(distribution=[repository, inside, patterns, about]))
    assert description.files == (DescribedFile(name="big.bin"),)
    assert "https://hub.example/notes" in description.sources
    said = " ".join(description.left_out)
    for word in ("git+https", "containedIn", "cr:FileSet", "contentSize"):
        assert word in said


def test_names_mean_what_the_context_says() -> None:
    renamed = croissant(
        **{"@context": CONTEXT | {"sha256": "cr:md5", "digest": "sc:sha256", "hash": "https://schema.org/sha256"}},
        distribution=[
            {"@type": "cr:FileObject", "@id": "a", "sha256": "an MD5, as this file has it", "digest": DIGEST}
        ],
    )
    assert read(renamed).files == (DescribedFile(name="a", sha256=DIGEST),)
    full = {
        "@context": ["https://schema.org/", "http://mlcommons.org/croissant/1.1"],
        "@type": ["http://schema.org/Dataset"],
        "http://purl.org/dc/terms/conformsTo": {"@id": "https://mlcommons.org/croissant/1.0"},
        "sc:name": {"@value": "Notes"},
        "https://schema.org/distribution": {"@type": "cr:FileObject", "@id": "a.csv", "cr:sha256": DIGEST},
        "ours:more": 1,
    }
    description = read(full)
    assert (description.form, description.name) == ("croissant-1.0", "Notes")
    assert description.files == (DescribedFile(name="a.csv", sha256=DIGEST),)
    assert description.left_out == ("ours:more",)
    aliased = croissant(**{"@context": CONTEXT | {"type": "@type"}, "@type": None, "type": "Dataset"})
    assert read(aliased).name == "Notes"
    forgotten = croissant(**{"@context": CONTEXT | {"license": None}})
    assert read(forgotten).licences == ()


def test_texts_in_several_languages() -> None:
    assert read(croissant(name={"de": "Notizen", "en": "Notes"})).name == "Notes"
    assert read(croissant(name=[{"@language": "de", "@value": "Notizen"}])).name == "Notizen"
    refused(croissant(name={"de": "Notizen", "fr": "Notes"}), "name: ", "in 2 languages")


def test_a_number_stays_as_it_was_written() -> None:
    assert read_description(json.dumps(croissant()).replace('"1.2.0"', "1.10").encode()).version == "1.10"
    assert read(croissant(version=3)).version == "3"


FILE = {"@type": "cr:FileObject", "@id": "a.csv"}


@pytest.mark.parametrize(
    ("changes", "where", "why"),
    [
        ({"conformsTo": None}, "conformsTo: ", "is missing"),
        ({"conformsTo": "http://mlcommons.org/croissant/0.8"}, "conformsTo: ", "Croissant 1.0 and 1.1 are read"),
        ({"@type": "sc:DataCatalog"}, "@type: ", "not sc:Dataset"),
        ({"@graph": []}, "@graph: ", "one object"),
        ({"@context": "https://evil.example/context"}, "@context: ", "nothing is: put it into the file"),
        ({"@context": [CONTEXT, {"@import": "x"}]}, "@context[1].'@import'", "is not read"),
        ({"@context": CONTEXT | {"url": {"@reverse": "sc:x"}}}, "@context.'url'", "reverse"),
        ({"@context": 7}, "@context: ", "a number, not an object"),
        ({"sc:name": "again"}, "sc:name: ", "means the same as 'name'"),
        ({"name": ["a"]}, "name: ", "text, not an object"),
        ({"name": {}}, "name: ", "in 0 languages"),
        ({"name": "two\nlines"}, "name: ", "one line"),
        ({"name": ""}, "name: ", "0 characters"),
        ({"license": [{"@type": "sc:CreativeWork"}]}, "license[0]: ", "neither @id, url nor name"),
        ({"license": [{"name": {"en": "a"}}]}, "license[0]: ", "an object, not text"),
        ({"license": [True]}, "license[0]: ", "true or false, not text"),
        ({"url": "x" * 3000}, "url: ", "3000 characters"),
        ({"isBasedOn": ["x"] * 2000}, "isBasedOn: ", "2000 members"),
        ({"distribution": ["a.csv"]}, "distribution[0]: ", "not an object"),
        ({"distribution": [{"@id": "a"}]}, "distribution[0].@type: ", "neither cr:FileObject"),
        ({"distribution": [FILE | {"sha256": "ab"}]}, "distribution[0].sha256: ", "64 hexadecimal digits"),
        ({"distribution": [FILE | {"sha256": None}]}, "distribution", ""),
        ({"distribution": [FILE | {"@context": {}}]}, "distribution[0].@context: ", "inside"),
        ({"distribution": [FILE | {"contentUrl": "../a"}]}, "distribution[0].contentUrl: ", "must be relative"),
        ({"distribution": [FILE | {"contentUrl": "/etc/passwd"}]}, "distribution[0].contentUrl: ", "must be relative"),
        ({"distribution": [FILE | {"contentUrl": "https://h/%2e%2e"}]}, "distribution[0].contentUrl: ", "relative"),
        ({"distribution": [FILE | {"contentUrl": "https://["}]}, "distribution[0].contentUrl: ", "no address"),
        ({"distribution": [FILE | {"contentSize": {}}]}, "distribution[0].contentSize: ", "an object, not text"),
        ({"distribution": [FILE, FILE]}, "", "two files would both be called 'a.csv'"),
        ({"distribution": [FILE] * (MAX_FILES + 1)}, "distribution: ", "members"),
    ],
)
def test_a_mistake_is_told_by_its_place(changes: dict[str, Any], where: str, why: str) -> None:
    if changes.get("distribution") == [FILE | {"sha256": None}]:
        assert read(croissant(**changes)).files[0].sha256 is None  # null is what JSON-LD has for "not said"
        return
    refused(croissant(**changes), where, why)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1}\n{"a": 2}', "not JSON"),
        (b'{"@context": 1, "@context": 2}', "member '@context' is there twice"),
        (b'{"a": NaN}', "NaN is no value"),
        (b'{"a": \xff}', "not JSON"),
        (b'{"a": ' + b"[" * 200_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b'{"a": 1}', "neither Croissant"),
        (b" " * (MAX_DESCRIPTION + 1), "at most"),
    ],
)
def test_what_is_no_description(data: bytes, why: str) -> None:
    with pytest.raises(DescriptionError, match=why):
        read_description(data)


def test_only_so_much_is_said_to_be_left_out() -> None:
    many = read(croissant(**{f"field{number}": 1 for number in range(500)}))
    assert len(many.left_out) == MAX_LEFT_OUT
    assert many.left_out[-1].startswith("and ")


def test_names_that_are_left_out_can_be_printed() -> None:
    odd = {"": 1, "\n": 1, "\ud800": 1, "größe": 1, "x" * 500: 1}
    for description in (read(croissant(**odd)), read(run_event(**odd)), read(run_event(outputs=[dataset("a", **odd)]))):
        assert all(name.isascii() and name.isprintable() and 0 < len(name) <= 120 for name in description.left_out)
        made = Draft.of(description, asset="acme/x", kind=AssetKind.DATASET, inputs=())
        assert Draft.parse(made.to_bytes()) == made


SPECIFICATION = "https://openlineage.io/spec"


def dataset(name: str, **facets: Any) -> dict[str, Any]:
    return {"namespace": "lake", "name": name, "facets": facets}


def run_event(**changes: Any) -> dict[str, Any]:
    return {
        "eventType": "COMPLETE",
        "eventTime": "2026-11-22T13:00:00Z",
        "producer": "https://scheduler.example",
        "schemaURL": f"{SPECIFICATION}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": "550e8400-e29b-41d4-a716-446655440000"},
        "job": {"namespace": "jobs", "name": "clean"},
        "inputs": [dataset("raw", version={"datasetVersion": "7"}), dataset("names")],
        "outputs": [
            dataset(
                "clean",
                version={"datasetVersion": "3"},
                dataSource={"name": "lake", "uri": "s3://lake/clean"},
                schema={"fields": []},
            )
        ],
    } | changes


def test_an_output_of_a_run() -> None:
    description = read(run_event())
    assert (description.form, description.name, description.version) == ("openlineage-2-0-2", "lake/clean", "3")
    assert description.inputs == ("lake/raw@7", "lake/names")
    assert (description.sources, description.files) == (("s3://lake/clean",), ())
    assert description.left_out == ("eventType", "job", "outputs[0].facets.schema", "run")
    job = run_event(schemaURL=f"{SPECIFICATION}/1-0-5/OpenLineage.json#/definitions/JobEvent")
    assert read({name: value for name, value in job.items() if name != "run"}).form == "openlineage-1-0-5"


def test_which_output_has_to_be_said_where_there_are_several() -> None:
    two = run_event(outputs=[dataset("a"), dataset("b")])
    refused(two, "outputs: ", "say which by --output; known are 'lake/a', 'lake/b'")
    refused(two, "outputs: ", "names 0", output="lake/c")
    description = read(two, output="lake/b")
    assert (description.name, "outputs[] beside outputs[1]" in description.left_out) == ("lake/b", True)
    refused(run_event(outputs=[dataset("a"), dataset("a")]), "outputs: ", "names 2", output="lake/a")
    with pytest.raises(DescriptionError, match="--output: belongs to an OpenLineage event"):
        read(croissant(), output="lake/b")


@pytest.mark.parametrize(
    ("event", "where", "why"),
    [
        (
            run_event(schemaURL="https://openlineage.io/spec/0-1-0/OpenLineage.json"),
            "schemaURL: ",
            "object model 1 or 2",
        ),
        (run_event(schemaURL=3.5), "schemaURL: ", "no event"),
        (run_event(producer=None), "producer: ", "null, not text"),
        (run_event(outputs=[]), "outputs: ", "none"),
        (run_event(inputs=[{"name": "x"}]), "inputs[0].namespace: ", "null, not text"),
        (run_event(inputs=["x"]), "inputs[0]: ", "text, not an object"),
        (run_event(inputs=[dataset("x", version={})]), "inputs[0].facets.version.datasetVersion: ", "null"),
        (run_event(outputs=[{"namespace": "n", "name": "x", "facets": []}]), "outputs[0].facets: ", "a list"),
        ({"schemaURL": f"{SPECIFICATION}/2-0-2/OpenLineage.json", "producer": "x"}, "", "neither a dataset nor a job"),
    ],
)
def test_a_mistake_in_an_event_is_told_by_its_place(event: dict[str, Any], where: str, why: str) -> None:
    refused(event, where, why)


def test_our_own_export_comes_back_in() -> None:
    """Another factory's version, as that factory exported it."""
    record = Record.build(
        kind=Kind.ASSET_VERSION_ADDED,
        time=1_800_000_000,
        actor=Actor(role="owner", name="ada", tenant="acme"),
        tenant="acme",
        assets=("acme/clean@3", "acme/raw@7"),
        result=Result.RECORDED,
        detail={"version": "acme/clean@3"},
    )
    (event,) = openlineage_events([(Entry(0, bytes(32), None), record)], namespace="hall-1")
    description = read(event)
    assert (description.name, description.version) == ("hall-1/acme/clean", "3")
    assert description.inputs == ("hall-1/acme/raw",)


def draft(**changes: Any) -> Draft:
    inputs = [DraftInput(name="raw", ref="acme/raw@1"), DraftInput(name="names", outside=True)]
    made = Draft.of(read(croissant()), asset="acme/notes", kind=AssetKind.PREPROCESSED, inputs=inputs)
    return made.model_copy(update=changes)


def test_a_draft_is_read_as_it_was_written() -> None:
    made = draft()
    assert Draft.parse(made.to_bytes()) == made
    assert made.parents() == ("acme/raw@1",)
    assert made.description_digest == read(croissant()).digest
    undecided = made.model_copy(update={"inputs": (DraftInput(name="raw"), *made.inputs[1:])})
    with pytest.raises(DescriptionError, match=r"1 undecided \('raw'\)"):
        Draft.parse(undecided.to_bytes()).parents()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"draft": 2}, "draft: "),
        ({"asset": "notes"}, "asset: "),
        ({"asset": "acme/notes@1"}, "asset: "),
        ({"kind": "poem"}, "kind: "),
        ({"description_digest": "AB" * 32}, "description_digest: "),
        ({"more": 1}, "more: "),
        ({"files": [{"name": "../x"}]}, r"files\.0\.name: "),
        ({"files": [{"name": "x"}, {"name": "x", "size": 1}]}, "two have one name"),
        ({"files": [{"name": "x", "size": -1}]}, r"files\.0\.size: "),
        ({"files": [{"name": "x", "size": "1"}]}, r"files\.0\.size: "),
        ({"inputs": [{"name": "x", "ref": "raw@1"}]}, r"inputs\.0\.ref: "),
        ({"inputs": [{"name": "x", "ref": "acme/raw@01"}]}, r"inputs\.0\.ref: "),
        ({"inputs": [{"name": "x", "ref": "acme/raw@1", "outside": True}]}, "one of them"),
        ({"inputs": [{"name": "x"}, {"name": "x"}]}, "two have one name"),
        ({"name": "two\nlines"}, "name: "),
        ({str(number): 1 for number in range(20)}, "and 14 more"),
    ],
)
def test_a_draft_with_a_mistake(changes: dict[str, Any], why: str) -> None:
    document = json.loads(draft().to_bytes()) | changes
    with pytest.raises(DescriptionError, match=why):
        Draft.parse(json.dumps(document).encode())


def test_a_draft_that_says_something_twice() -> None:
    with pytest.raises(DescriptionError, match="'draft' is there twice"):
        Draft.parse(draft().to_bytes().replace(b'"draft": 1', b'"draft": 1, "draft": 1'))


def test_a_draft_of_what_is_no_asset() -> None:
    with pytest.raises(DescriptionError, match="asset: "):
        Draft.of(read(croissant()), asset="no tenant", kind=AssetKind.DATASET, inputs=())
