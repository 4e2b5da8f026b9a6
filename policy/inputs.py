"""What each pack is asked about: input and settings documents as models, and their JSON Schemas.

The models are the contract between the broker, which fills them, and the packs, which read them; the schemas in
``packs/schemas`` are generated from them, and `opa check` holds the packs against the schemas. Instants and ages are
integer seconds, so that no policy parses a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Final, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from policy.documents import MAX_INTEGER, encode_document

Seconds: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INTEGER, description="Seconds since the Unix epoch.")]
Duration: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INTEGER, description="Seconds.")]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=300)]
Jurisdiction: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$",
        description="ISO 3166-1 alpha-2 country, or ISO 3166-2 subdivision (DE-BY), of where a site stands.",
    ),
]
Area: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^(\*|[A-Z]{2}(-[A-Z0-9]{1,3})?|[A-Z]{2,16})$",
        description="A jurisdiction, a group of the pack's data (EU, EEA), or * for every place.",
    ),
]

Assurance: TypeAlias = Literal["simulated", "cpu", "cpu-and-devices"]
"""How well a node has proven what it is, or must have; a later one meets every earlier one."""

BINDING_FULL: Final = "key-and-devices"
"""The CPU evidence vouches for the node's keys and for every device's evidence (DESIGN, "Handshake")."""


class Document(BaseModel):
    """Base of every model here: frozen, strict, no unknown members."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def to_input(self) -> dict[str, object]:
        """The document as `PolicyEngine.evaluate` takes it and as audit records store it."""
        return self.model_dump(mode="json")

    def to_bytes(self) -> bytes:
        """The canonical encoding (RFC 8785): what is evaluated, digested and stored is the same bytes.

        Raises:
            PolicyInputError: a claim holds a float or is too large.
        """
        return encode_document(self.to_input(), what=type(self).__name__)


class FindingInput(Document):
    """A verifier's finding, as `attestation.findings.Finding.to_json` writes it."""

    code: Name
    severity: Literal["fail", "inform"]
    field: str
    expected: str
    actual: str
    title: str
    remedy: str
    reference: str


class DeviceInput(Document):
    """What verification of one device established."""

    slot: Name = Field(description="cpu0, gpu0 …, nvswitch0 …")
    scheme: Name = Field(description="snp, tdx, nvgpu, …")
    simulated: bool
    identity: Name | None = Field(description="Certified hardware identity, KIND:HEX; null where it is not proven.")
    claims: dict[str, JsonValue]
    findings: tuple[FindingInput, ...]
    collateral_age: dict[str, Duration] = Field(description="Age of each piece of collateral used, by its name.")


class AppraisalInput(Document):
    """Input of the ``appraisal`` pack: the verified evidence of one node."""

    now: Seconds
    binding_level: Name
    node_findings: tuple[FindingInput, ...] = Field(description="Findings about the devices as a set.")
    devices: tuple[DeviceInput, ...]


class GrantInput(Document):
    """The job grant (`keystead.binding.JobGrant`).

    Empty `nodes` or `sites` do not narrow it; what the job did not declare is empty text.
    """

    grant_id: Name
    tenant: Name
    job_uid: Name
    scheduler: Name
    assets: tuple[Name, ...] = Field(description="TENANT/NAME@VERSION")
    purposes: tuple[Name, ...]
    nodes: tuple[Name, ...]
    sites: tuple[Name, ...]
    node_ceiling: int = Field(ge=0, le=MAX_INTEGER)
    not_before: Seconds
    not_after: Seconds
    project: str
    user: str
    stage: str = Field(description="Of the data life cycle: training, inference, …")
    image: str = Field(description="SHA-256 of the code or container image, hex.")
    network: str = Field(description="none, fabric or egress.")


class JobInput(Document):
    """The job as the broker knows it; at stage ``authorize`` the job that would be opened."""

    state: Literal["open", "preempted", "closed"]
    live_nodes: tuple[Name, ...] = Field(description="Nodes that hold a live lease of this job.")


class AreasInput(Document):
    """Where: within some area of every clause of `allowed`, and within none of `forbidden`."""

    allowed: tuple[tuple[Area, ...], ...]
    forbidden: tuple[Area, ...]


class HoldersInput(Document):
    """Who would hold keys of the asset, any version of it, over all jobs, if this request were allowed."""

    nodes: int = Field(ge=0, le=MAX_INTEGER, description="Nodes with a live lease, the asking one included.")
    leases: int = Field(ge=0, le=MAX_INTEGER, description="Live leases, the one asked for or renewed included.")


BudgetName: TypeAlias = Literal["key_seconds", "opens", "bytes_opened", "tokens_served", "bytes_served"]
"""What is counted of an asset version's use."""


class BudgetInput(Document):
    """One budget: how much of an asset version may be used, and how much was.

    Where a lease is renewed, the seconds that it was charged for and has not used are not in `spent`.
    """

    name: BudgetName
    scope: Literal["asset", "job"] = Field(description="Over all jobs, as the owner says, or of this job alone.")
    limit: int = Field(ge=0, le=MAX_INTEGER)
    spent: int = Field(ge=0, le=MAX_INTEGER)


class ReportingInput(Document):
    """How the holder of a lease reports what it uses."""

    every: Duration = Field(description="Seconds between reports that it was asked for.")
    age: Duration = Field(description="Seconds since its last report, or since it was first asked.")


class AssetInput(Document):
    """One version of one asset with the constraints that travel with it (`keybroker.constraints.Constraints`).

    Where a set or a bound is null, the asset restricts nothing of the kind.
    """

    asset: Name = Field(description="TENANT/NAME")
    version: int = Field(ge=1, le=MAX_INTEGER)
    tenant: Name
    kind: Name = Field(description="model, dataset, checkpoint, …")
    state: Literal["active", "revoked"]
    classification: int = Field(ge=0, le=MAX_INTEGER)
    purposes: tuple[Name, ...]
    residency: AreasInput = Field(description="For the site's jurisdiction; at least one clause.")
    exposure: AreasInput = Field(description="For every jurisdiction of the site's operator and its controllers.")
    sites: tuple[Name, ...] | None
    retain_until: Seconds | None
    assurance: Assurance
    node_ceiling: int | None = Field(ge=1, le=MAX_INTEGER)
    copy_ceiling: int | None = Field(ge=1, le=MAX_INTEGER)
    projects: tuple[Name, ...] | None
    users: tuple[Name, ...] | None
    stages: tuple[Name, ...] | None
    images: tuple[Name, ...] | None
    networks: tuple[Name, ...] | None
    obligations: dict[str, dict[str, Duration]] = Field(description="Parameters by code.")


class NodeInput(Document):
    """The enrolled node that the attested identities resolve to, and how its claims compare."""

    node_id: Name
    state: Literal["active", "quarantined", "retired"]
    custody: Literal["in-transit", "installed", "maintenance", "decommissioned"] = Field(
        description="In whose hands the hardware is; only one that is installed may receive keys."
    )
    claimed_node_id: Name = Field(description="What the node's runtime data says.")
    device_set_matches: bool = Field(description="The attested identities are exactly the enrolled set.")


class SiteInput(Document):
    """The enrolled site of a node; its signed record holds from `valid_from` until `valid_until`."""

    site_id: Name
    jurisdiction: Jurisdiction
    exposures: tuple[Jurisdiction, ...] = Field(
        description="Jurisdictions of the operator and of the legal entities that control it; empty: not known."
    )
    certifications: tuple[Name, ...]
    network_zone: str
    state: Literal["active", "suspended", "retired"]
    valid_from: Seconds
    valid_until: Seconds


class AttestationInput(Document):
    """What the appraisal of the node decided."""

    allow: bool
    status: int = Field(ge=-128, le=127, description="Worst AR4SI status of any device: 0, 2, 32 or 96.")
    simulated: bool
    policy_digest: Name = Field(description="`PolicyEngine.digest` of the appraisal.")
    codes: tuple[Name, ...] = Field(
        description="Codes of the appraisal's denials, or of an Attestation Result's findings."
    )
    age: Duration = Field(description="Seconds since the appraisal: 0, or the age of a presented Attestation Result.")
    assurance: Assurance
    host_data: str = Field(
        description="What the host bound to the CPU TEE at launch (SNP HOST_DATA), hex; empty where not known."
    )


class ReleaseInput(Document):
    """Input of the ``release`` pack: may this job have this asset's key on this node, now?

    At stage ``authorize`` there is no node: `node`, `site` and `attestation` are null, and `candidate_sites` lists the
    sites where the job may run (null where that is not known). At stage ``plan`` the broker asks on somebody's behalf
    what it would decide at ``acquire``, about what the node proved last; a pack must not answer otherwise.
    """

    stage: Literal["authorize", "plan", "acquire", "renew"]
    now: Seconds
    grant: GrantInput
    job: JobInput
    asset: AssetInput
    holders: HoldersInput | None = Field(description="Null where no ceiling asks, or before there is a node.")
    budgets: tuple[BudgetInput, ...] = Field(description="Of this asset version: the asset's, then the job's.")
    reporting: ReportingInput | None = Field(
        description="Null before there is a lease, and where its holder was not asked to report."
    )
    node: NodeInput | None
    site: SiteInput | None
    attestation: AttestationInput | None
    candidate_sites: tuple[SiteInput, ...] | None


class Settings(Document):
    """``data.settings``: what the operator may turn without writing Rego. The defaults are production's."""

    allow_simulated: bool = Field(default=False, description="Accept simulated TEEs: demo and tests only.")
    binding_levels: tuple[Name, ...] = Field(default=(BINDING_FULL,), description="Accepted binding levels.")
    cpu_schemes: tuple[Name, ...] = Field(default=("snp", "tdx"), description="Schemes that prove a CPU TEE.")
    schemes_without_debug: tuple[Name, ...] = Field(
        default=("nvgpu", "nvswitch"), description="Schemes whose evidence carries no debug state to check."
    )
    measurements: tuple[Name, ...] = Field(
        default=(), description="Approved launch measurements of CPU TEEs, hex; empty: not appraised, and said so."
    )
    collateral_age_ceiling: dict[str, Duration] = Field(
        # AMD renews its revocation lists about once a year; whether one is current is the verifier's own check.
        default={"*": 30 * 86_400, "amd-crl": 400 * 86_400},
        description="Oldest accepted collateral by name, in seconds; * for any other.",
    )
    attestation_age_ceiling: Duration = Field(default=900, description="Oldest accepted appraisal, in seconds.")
    attestation_status_ceiling: int = Field(
        default=32, ge=0, le=127, description="Worst accepted AR4SI status: 2 affirming, 32 warning."
    )
    image_binding: Literal["host-data", "measurement-only"] = Field(
        default="host-data",
        description="What ties a job's image to hardware: the CPU TEE's host data, or the launch measurement alone.",
    )
    lease_ceiling: Duration = Field(default=3600, description="Longest lease, in seconds.")
    re_attest: Duration = Field(default=900, description="Seconds after which a lease holder must attest again.")
    report_usage: Duration = Field(
        default=60, description="Seconds between reports of what a lease uses, where a budget rests on them."
    )

    def to_data(self) -> dict[str, object]:
        """The `data` argument of `PolicyEngine`."""
        return {"settings": self.to_input()}


SCHEMAS: Final[Mapping[str, type[Document]]] = {
    "appraisal": AppraisalInput,
    "release": ReleaseInput,
    "settings": Settings,
}
"""The models by the name of their schema file."""


def render_schema(name: str) -> str:
    """The text of ``packs/schemas/<name>.json``."""
    return json.dumps(SCHEMAS[name].model_json_schema(), indent=2, ensure_ascii=False) + "\n"


SHAPES: Final[Mapping[str, type[Document]]] = {
    "appraisal": AppraisalInput,
    "device": DeviceInput,
    "finding": FindingInput,
    "release": ReleaseInput,
    "settings": Settings,
}
"""The models whose types packs check for themselves (``data.shapes``), so that Python and Rego cannot drift apart."""


def render_shapes() -> str:
    """The text of ``packs/shapes/data.json``: what `lib.shape` holds documents against.

    ``required`` lists every member with its path and kind, members of nested objects included; ``nullable`` has the
    same lists for members of the document itself that may be null, by their names. What may be null further inside has
    a kind that says so, such as ``texts or null``.
    """
    shapes = ",\n".join(f'  "{name}": {{\n{_shape_text(model)}\n  }}' for name, model in SHAPES.items())
    return f"{{\n{shapes}\n}}\n"


def _shape_text(model: type[Document]) -> str:
    required, nullable = _shape(model)
    lists = [_list_text("required", required, 4), '    "nullable": {']
    members = ",\n".join(_list_text(name, entries, 6) for name, entries in nullable.items())
    return ",\n".join(lists) + (f"\n{members}\n    }}" if members else "}")


def _list_text(name: str, entries: list[dict[str, object]], indent: int) -> str:
    lines = ",\n".join(" " * (indent + 2) + json.dumps(entry) for entry in entries)
    return f'{" " * indent}"{name}": [\n{lines}\n{" " * indent}]'


def _shape(model: type[Document]) -> tuple[list[dict[str, object]], dict[str, list[dict[str, object]]]]:
    nullable: dict[str, list[dict[str, object]]] = {}
    required: list[dict[str, object]] = []
    for name, field in model.model_fields.items():
        arguments = get_args(field.annotation)
        if type(None) in arguments:
            (inner,) = (argument for argument in arguments if argument is not type(None))
            nullable[name] = _entries(inner, (name,), named=True)
        else:
            required += _entries(field.annotation, (name,), named=bool(field.metadata))
    return required, nullable


def _entries(annotation: object, path: tuple[str, ...], *, named: bool) -> list[dict[str, object]]:
    """What stands at `path`; `named` says that a string there may not be empty."""
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return [
            entry
            for name, field in annotation.model_fields.items()
            for entry in _entries(field.annotation, (*path, name), named=bool(field.metadata))
        ]
    return [{"field": ".".join(path), "path": list(path), "kind": _kind(annotation, named=named)}]


def _kind(annotation: object, *, named: bool) -> str | list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], named=True)
    if origin in (Union, UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return f"{_kind(inner, named=named)} or null"
    if origin is Literal:
        return list(arguments)
    if origin is tuple:
        return "texts" if _kind_of_item(arguments[0]) == "text" else "array"
    if origin is dict:
        return {"integer": "integers", "integers": "duties"}.get(_kind_of_item(arguments[1]), "object")
    simple = {bool: "boolean", int: "integer", str: "name" if named else "text"}
    for known, kind in simple.items():
        if annotation is known:
            return kind
    raise TypeError(f"{annotation} has no kind in lib.shape")


def _kind_of_item(annotation: object) -> str:
    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(base) is dict and _kind_of_item(get_args(base)[1]) == "integer":
        return "integers"
    return "text" if base is str else "integer" if base is int else "other"


def render_settings() -> str:
    """The text of ``packs/settings/data.json``: the defaults of `Settings`."""
    return json.dumps(Settings().to_input(), indent=2, ensure_ascii=False) + "\n"
