"""OpenLineage events as descriptions of a data set: a DatasetEvent, or one output of a RunEvent or JobEvent.

Object model 1 and 2 (openlineage.io, OpenLineage.json). An event has no digests of files; what it has is names,
versions and inputs. Its inputs are what somebody declared, and nothing that a broker saw.
"""

from __future__ import annotations

import re
from typing import Any, Final

from keystead.cli.descriptions.document import (
    Description,
    DescriptionError,
    as_list,
    as_object,
    left_out,
    one_text,
    unique,
)

_SCHEMA: Final = re.compile(
    r"https://openlineage\.io/spec/([12]-[0-9]{1,3}-[0-9]{1,3})/OpenLineage\.json"
    r"(#/(?:\$defs|definitions)/(RunEvent|DatasetEvent|JobEvent))?\Z"
)
_READ: Final = frozenset({"schemaURL", "producer", "eventTime", "inputs", "outputs", "dataset"})
_EMPTY: Final[dict[str, Any]] = {}


def parse_openlineage(event: dict[str, Any], *, digest: str, output: str | None = None) -> Description:
    """Read an event.

    Args:
        event: one event.
        digest: SHA-256 of its bytes, lower-case hexadecimal.
        output: which output of a run is described, ``NAMESPACE/NAME``; needed where it has several.

    Raises:
        DescriptionError: no event of object model 1 or 2, or a field that is read has another form.
    """
    schema = one_text(event.get("schemaURL"), "schemaURL")
    match = _SCHEMA.match(schema)
    if match is None:
        raise DescriptionError("schemaURL", f"{schema!a:.120} is no event of OpenLineage's object model 1 or 2")
    one_text(event.get("producer"), "producer")
    omitted = [str(name) for name in event if name not in _READ]
    if "dataset" in event:
        subject, where = as_object(event["dataset"], "dataset"), "dataset"
        inputs = _declared(subject)
    elif "job" in event:
        subject, where = _output(event, output)
        inputs = [
            _reference(as_object(each, f"inputs[{number}]"), f"inputs[{number}]")
            for number, each in enumerate(as_list(event.get("inputs", []), "inputs"))
        ]
        omitted += [f"outputs[] beside {where}"] if len(event["outputs"]) > 1 else []
    else:
        raise DescriptionError("", "neither a dataset nor a job, so that it describes nothing")
    facets = _facets(subject, where)
    sources = []
    if "dataSource" in facets:
        source = as_object(facets["dataSource"], f"{where}.facets.dataSource")
        sources = [one_text(source["uri"], f"{where}.facets.dataSource.uri")] if "uri" in source else []
    omitted += [f"{where}.facets.{name}" for name in facets if name not in {"version", "dataSource", "lineage"}]
    omitted += [f"{where}.{name}" for name in subject if name not in {"namespace", "name", "facets"}]
    return Description(
        form=f"openlineage-{match[1]}",
        digest=digest,
        name=_name(subject, where),
        version=_version(subject, where),
        sources=tuple(sources),
        inputs=unique(inputs),
        left_out=left_out(omitted),
    )


def _output(event: dict[str, Any], wanted: str | None) -> tuple[dict[str, Any], str]:
    outputs = [
        (as_object(each, f"outputs[{number}]"), f"outputs[{number}]")
        for number, each in enumerate(as_list(event.get("outputs", []), "outputs"))
    ]
    if not outputs:
        raise DescriptionError("outputs", "none, so that the event describes no data; take the event that names them")
    names = [_name(each, where) for each, where in outputs]
    if wanted is None:
        if len(outputs) > 1:
            known = ", ".join(f"{name!a:.80}" for name in names[:8])
            raise DescriptionError("outputs", f"{len(outputs)} of them: say which by --output; known are {known}")
        return outputs[0]
    if names.count(wanted) != 1:
        known = ", ".join(f"{name!a:.80}" for name in names[:8])
        raise DescriptionError("outputs", f"--output {wanted!a:.80} names {names.count(wanted)}; known are {known}")
    return outputs[names.index(wanted)]


def _declared(dataset: dict[str, Any]) -> list[str]:
    """Inputs by the facet ``lineage``; a job among them is no data."""
    where = "dataset.facets.lineage"
    lineage = as_object(_facets(dataset, "dataset").get("lineage", _EMPTY), where)
    found = []
    for number, each in enumerate(as_list(lineage.get("inputs", []), f"{where}.inputs")):
        here = f"{where}.inputs[{number}]"
        source = as_object(each, here)
        if one_text(source.get("type", "DATASET"), f"{here}.type") == "DATASET":
            found.append(_name(source, here))
    return found


def _reference(dataset: dict[str, Any], where: str) -> str:
    version = _version(dataset, where)
    return _name(dataset, where) + ("" if version is None else f"@{version}")


def _name(dataset: dict[str, Any], where: str) -> str:
    namespace = one_text(dataset.get("namespace"), f"{where}.namespace")
    return one_text(f"{namespace}/{one_text(dataset.get('name'), f'{where}.name')}", where)


def _version(dataset: dict[str, Any], where: str) -> str | None:
    facets = _facets(dataset, where)
    if "version" not in facets:
        return None
    facet = as_object(facets["version"], f"{where}.facets.version")
    return one_text(facet.get("datasetVersion"), f"{where}.facets.version.datasetVersion")


def _facets(dataset: dict[str, Any], where: str) -> dict[str, Any]:
    return as_object(dataset.get("facets", _EMPTY), f"{where}.facets")
