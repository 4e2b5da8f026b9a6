"""Lineage from records alone: which asset versions a version came from or went into, through which jobs, and where.

Three kinds of records say so. A grant (``lease.granted``) lets a job use versions on a node; an output
(``asset.output-registered``) is what the job made of all that it was granted; an owner declares what a version that was
added by hand was derived from (``asset.version-added``, ``asset.parents-declared``). Every step names the entries that
say so, so that each can be proven (`audit.proof`). Nothing but the log is asked: whoever has the records can do this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

from audit.query import Entry, Filter, parse_asset
from audit.records import Kind, Record

MAX_STEPS: Final = 2_000
"""Steps of one answer; a larger graph is said to be cut off."""

MAX_LEASES: Final = 256
"""Grants that one step names; the others are counted."""

Find: TypeAlias = Callable[[Filter], Iterable[Entry]]
"""Finds every entry that fits, in the order of the log."""

_JOB: Final = "job "
"""How the text of a job begins; no asset's name has a space."""

_OUTPUT: Final = "output"
_VERSION: Final = "version"


class Step(StrEnum):
    """How one thing leads to another."""

    USED = "used"
    """A job was granted the keys of a version."""

    MADE = "made"
    """A job's output was registered as a version."""

    DECLARED = "declared"
    """A version's owner declared what it was derived from."""


_SAID: Final = {
    (True, Step.USED): "used",
    (True, Step.MADE): "made by",
    (True, Step.DECLARED): "declared to come from",
    (False, Step.USED): "used by",
    (False, Step.MADE): "made",
    (False, Step.DECLARED): "declared to be part of",
}
"""How a step reads on a line, upwards and downwards."""


@dataclass(frozen=True, slots=True, order=True)
class Job:
    """A job: schedulers of two tenants may give the same id."""

    tenant: str
    uid: str

    def __str__(self) -> str:
        return f"{_JOB}{self.tenant}/{self.uid}"


Node: TypeAlias = str
"""``tenant/name@version``, or a `Job` as its text."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Where and under what a job used a version.

    Attributes:
        index: the entry that says so.
        lease, node, site, jurisdiction, policy_digest, hardware, time: as in `audit.records.Record`.
    """

    index: int
    lease: str | None
    node: str | None
    site: str | None
    jurisdiction: str | None
    policy_digest: str | None
    hardware: tuple[str, ...]
    time: int

    @classmethod
    def of(cls, index: int, record: Record) -> Grant:
        """What the record of a grant says."""
        return cls(
            index,
            record.lease,
            record.node,
            record.site,
            record.jurisdiction,
            record.policy_digest,
            record.hardware,
            record.time,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "entry": self.index,
            "lease": self.lease,
            "node": self.node,
            "site": self.site,
            "jurisdiction": self.jurisdiction,
            "policy_digest": self.policy_digest,
            "hardware": list(self.hardware),
            "time": self.time,
        }


@dataclass(frozen=True, slots=True)
class Edge:
    """One step, always from cause to effect.

    Attributes:
        step: how.
        source, target: what leads to what.
        entries: indexes of the entries that say so, sorted.
        grants: of a use, where and under what; at most `MAX_LEASES`.
        more_grants: how many more there are.
    """

    step: Step
    source: Node
    target: Node
    entries: tuple[int, ...]
    grants: tuple[Grant, ...] = ()
    more_grants: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "step": self.step.value,
            "source": self.source,
            "target": self.target,
            "entries": list(self.entries),
            "grants": [grant.to_json() for grant in self.grants],
            "more_grants": self.more_grants,
        }


@dataclass(frozen=True, slots=True)
class Lineage:
    """A part of the graph.

    Attributes:
        roots: the versions that were asked about.
        up: whether it shows where they came from; else what became of them.
        edges: in the order in which they were met, causes first where `up` is false.
        truncated: there is more.
        erased: indexes of entries that were met and are erased; what they said is missing.
    """

    roots: tuple[Node, ...]
    up: bool
    edges: tuple[Edge, ...]
    truncated: bool
    erased: tuple[int, ...] = ()

    def entries(self) -> tuple[int, ...]:
        """Every entry that the graph rests on, sorted."""
        return tuple(sorted({index for edge in self.edges for index in edge.entries}))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "roots": list(self.roots),
            "direction": "up" if self.up else "down",
            "edges": [edge.to_json() for edge in self.edges],
            "truncated": self.truncated,
            "erased": list(self.erased),
        }


def trace(find: Find, asset: str, *, up: bool, max_steps: int = MAX_STEPS) -> Lineage:
    """Follow a version, or every version of an asset, to where it came from (`up`) or to what became of it.

    Args:
        find: finds entries of the log.
        asset: ``TENANT/NAME`` or ``TENANT/NAME@VERSION``.
        up: the direction.
        max_steps: steps at most.

    Raises:
        QueryError: `asset` is neither.
        MalformedError: an entry holds no record of this version.
        LogCorruptError: an entry is not what was appended.
    """
    name, version = parse_asset(asset)
    roots = (asset,) if version is not None else _versions(find, name)
    walk = _Walk(find, max_steps)
    walk.follow(roots, up=up)
    return Lineage(roots, up, tuple(walk.edges.values()), walk.truncated, tuple(sorted(walk.erased)))


def _versions(find: Find, name: str) -> tuple[Node, ...]:
    """Every version of an asset that was added, in their order."""
    found = {
        ref
        for kind in (Kind.ASSET_VERSION_ADDED, Kind.ASSET_OUTPUT_REGISTERED)
        for entry in find(Filter(asset=name, kind=kind))
        if (record := entry.record()) is not None
        for ref in record.assets
        if ref.rpartition("@")[0] == name
    }
    return tuple(sorted(found, key=lambda ref: int(ref.rpartition("@")[2])))


class _Walk:
    def __init__(self, find: Find, max_steps: int) -> None:
        self._find = find
        self._max_steps = max_steps
        self.edges: dict[tuple[Step, Node, Node], Edge] = {}
        self.erased: set[int] = set()
        self.truncated = False

    def follow(self, roots: tuple[Node, ...], *, up: bool) -> None:
        waiting, met = deque(roots), set(roots)
        while waiting and not self.truncated:
            ref = waiting.popleft()
            for other in self._causes(ref) if up else self._effects(ref):
                if other not in met:
                    met.add(other)
                    waiting.append(other)

    def _causes(self, ref: Node) -> Iterator[Node]:
        for index, record in self._records(ref, Kind.ASSET_OUTPUT_REGISTERED):
            if record.detail.get(_OUTPUT) != ref:
                continue
            parents = tuple(each for each in record.assets if each != ref)
            if record.tenant is not None and record.job is not None:
                job = Job(record.tenant, record.job)
                self._add(Step.MADE, str(job), ref, index)
                self._uses(job, parents, before=index)
            yield from parents
        for index, record in self._declarations(ref):
            if record.detail.get(_VERSION) == ref:
                for parent in record.assets:
                    if parent != ref:
                        self._add(Step.DECLARED, parent, ref, index)
                        yield parent

    def _uses(self, job: Job, parents: tuple[Node, ...], *, before: int) -> None:
        """The grants by which a job used what an output was derived from; later ones are not its causes."""
        wanted = Filter(tenant=job.tenant, job=job.uid, kind=Kind.LEASE_GRANTED)
        for index, record in self._read(wanted):
            if index < before:
                for ref in record.assets:
                    if ref in parents:
                        self._add(Step.USED, ref, str(job), index, Grant.of(index, record))

    def _effects(self, ref: Node) -> Iterator[Node]:
        for index, record in self._records(ref, Kind.LEASE_GRANTED):
            if record.tenant is not None and record.job is not None:
                job = Job(record.tenant, record.job)
                self._add(Step.USED, ref, str(job), index, Grant.of(index, record))
        for index, record in self._records(ref, Kind.ASSET_OUTPUT_REGISTERED):
            output = record.detail.get(_OUTPUT)
            if isinstance(output, str) and output != ref and record.tenant is not None and record.job is not None:
                self._add(Step.MADE, str(Job(record.tenant, record.job)), output, index)
                yield output
        for index, record in self._declarations(ref):
            child = record.detail.get(_VERSION)
            if isinstance(child, str) and child != ref:
                self._add(Step.DECLARED, ref, child, index)
                yield child

    def _declarations(self, ref: Node) -> Iterator[tuple[int, Record]]:
        yield from self._records(ref, Kind.ASSET_VERSION_ADDED)
        yield from self._records(ref, Kind.ASSET_PARENTS_DECLARED)

    def _records(self, ref: Node, kind: Kind) -> Iterator[tuple[int, Record]]:
        name, version = parse_asset(ref)
        yield from self._read(Filter(asset=name, version=version, kind=kind))

    def _read(self, wanted: Filter) -> Iterator[tuple[int, Record]]:
        for entry in self._find(wanted):
            if self.truncated:
                return
            record = entry.record()
            if record is None:
                self.erased.add(entry.index)
            else:
                yield entry.index, record

    def _add(self, step: Step, source: Node, target: Node, index: int, grant: Grant | None = None) -> None:
        key = (step, source, target)
        edge = self.edges.get(key)
        if edge is None:
            if len(self.edges) >= self._max_steps:
                self.truncated = True
                return
            edge = Edge(step, source, target, ())
        if index in edge.entries:
            return
        if grant is not None and len(edge.grants) >= MAX_LEASES:
            self.edges[key] = replace(edge, more_grants=edge.more_grants + 1)
            return
        grants = edge.grants if grant is None else (*edge.grants, grant)
        self.edges[key] = replace(edge, entries=tuple(sorted((*edge.entries, index))), grants=grants)


def to_mermaid(lineage: Lineage) -> str:
    """As a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
    names = _names(lineage)
    lines = ["flowchart LR"]
    for node, name in names.items():
        shape = ("([", "])") if _is_job(node) else ("[", "]")
        lines.append(f'  {name}{shape[0]}"{_html(node)}"{shape[1]}')
    lines += [f'  {names[edge.source]} -->|"{_html(label(edge))}"| {names[edge.target]}' for edge in lineage.edges]
    return "\n".join(lines) + "\n"


def to_dot(lineage: Lineage) -> str:
    """As a Graphviz graph (https://graphviz.org/doc/info/lang.html)."""
    names = _names(lineage)
    lines = ["digraph lineage {", "  rankdir=LR;"]
    for node, name in names.items():
        lines.append(f'  {name} [shape={"ellipse" if _is_job(node) else "box"}, label="{_quoted(node)}"];')
    lines += [
        f'  {names[edge.source]} -> {names[edge.target]} [label="{_quoted(label(edge))}"];' for edge in lineage.edges
    ]
    return "\n".join([*lines, "}"]) + "\n"


def to_tree(lineage: Lineage) -> Iterator[str]:
    """As lines for a terminal, each step indented below the last; what was shown before is not shown again below."""
    steps: dict[Node, list[Edge]] = {}
    for edge in lineage.edges:
        steps.setdefault(edge.target if lineage.up else edge.source, []).append(edge)
    shown: set[Node] = set()
    # Not recursive: a lineage is as deep as there were jobs.
    waiting: list[tuple[Node, str, Edge | None]] = [(root, "", None) for root in reversed(lineage.roots)]
    while waiting:
        node, indent, by = waiting.pop()
        again = node in shown and node in steps
        how = "" if by is None else f"{_SAID[lineage.up, by.step]} "
        said = "" if by is None else f"  ({label(by)})"
        yield f"{indent}{how}{node}{said}{'  (as above)' if again else ''}"
        if by is not None:
            for grant in by.grants:
                yield f"{indent}    {_where(grant)}"
        if again:
            continue
        shown.add(node)
        waiting += [
            (edge.source if lineage.up else edge.target, f"{indent}  ", edge) for edge in reversed(steps.get(node, ()))
        ]


def label(edge: Edge) -> str:
    """What a step is called on a graph: how, and the entries that say so."""
    entries = ", ".join(map(str, edge.entries[:3]))
    more = len(edge.entries) - 3 + edge.more_grants
    sites = sorted({grant.site for grant in edge.grants if grant.site})
    where = f" at {', '.join(sites[:3])}{'…' if len(sites) > 3 else ''}" if sites else ""
    return f"{edge.step.value}{where}, entry {entries}{f' and {more} more' if more > 0 else ''}"


def _where(grant: Grant) -> str:
    facts = (
        ("entry", str(grant.index)),
        ("lease", grant.lease),
        ("node", grant.node),
        ("site", grant.site),
        ("jurisdiction", grant.jurisdiction),
        ("policy", None if grant.policy_digest is None else f"{grant.policy_digest[:12]}…"),
        ("hardware", f"{len(grant.hardware)} devices" if grant.hardware else None),
    )
    return "  ".join(f"{name} {value}" for name, value in facts if value is not None)


def _names(lineage: Lineage) -> dict[Node, str]:
    nodes = dict.fromkeys(lineage.roots)
    for edge in lineage.edges:
        nodes |= dict.fromkeys((edge.source, edge.target))
    return {node: f"n{number}" for number, node in enumerate(nodes)}


def _is_job(node: Node) -> bool:
    return node.startswith(_JOB)


def _html(text: str) -> str:
    """Escaped as Mermaid reads it: character references without the ampersand."""
    return "".join(char if char.isalnum() or char in " ,./@:_-…" else f"#{ord(char)};" for char in text)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
