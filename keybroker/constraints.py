"""What the owner of data demands, as a lattice: constraints travel with data and only ever become stricter.

Source: DESIGN, principle 5. `join` is the least constraint that is at least as strict as both of its arguments: places,
sites, purposes and who may use the data intersect, classification and assurance take the maximum, retention, ceilings
and budgets the minimum, obligations the union with the strictest parameters. What is derived from several assets
carries the join of theirs. `relaxes` says in which fields new constraints are freer than old ones, which takes a
declassification.

Everything here is a pure function of its arguments: no database, no clock. Instants are integer seconds since the Unix
epoch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import lru_cache, reduce
from itertools import combinations
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeAlias

import rfc8785

from keybroker.errors import ConstraintsError
from keystead.binding import BindingError, check_id

MAX_CLASSIFICATION: Final = 4
"""Crown jewel; 0 is public."""

STAGES: Final = frozenset(
    {
        "ingestion",
        "preprocessing",
        "augmentation",
        "feature-extraction",
        "training",
        "checkpointing",
        "validation",
        "inference",
        "retraining",
    }
)
"""Stages of the data life cycle that a job may be at."""

EGRESS: Final = "egress"
NETWORKS: Final = frozenset({"none", "fabric", EGRESS})
"""How a job is connected: not at all, to the other nodes of its fabric only, or to the world outside."""

BUDGETS: Final = frozenset({"key_seconds", "opens", "bytes_opened", "tokens_served", "bytes_served"})
"""What may be budgeted against extraction."""

LEASE_CEILING: Final = "lease_ceiling"
RE_ATTEST: Final = "re_attest"
ZEROISE_ON_END: Final = "zeroise_on_end"
NO_LOGITS: Final = "no_logits"
NO_EGRESS: Final = "no_egress"
OUTPUT_CEILING: Final = "output_ceiling"
REPORT_USAGE: Final = "report_usage"

OBLIGATIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        LEASE_CEILING: frozenset({"seconds"}),
        RE_ATTEST: frozenset({"seconds"}),
        ZEROISE_ON_END: frozenset(),
        NO_LOGITS: frozenset(),
        NO_EGRESS: frozenset(),
        OUTPUT_CEILING: frozenset({"tokens", "bytes"}),
        REPORT_USAGE: frozenset({"every"}),
    }
)
"""Duties that may travel with a lease, with the parameters that each may have; every parameter is a ceiling."""

ANYWHERE: Final = "*"
"""The area that every place lies in."""

MAX_INTEGER: Final = (1 << 53) - 1
"""Integers are exact in every JSON reader up to here (RFC 8259, section 6)."""

MAX_VALUES: Final = 8192
"""Members of one set. Joins may hold more than one request may name: at most every place there is, and some."""

MAX_TEXT: Final = 1 << 20
"""Bytes of constraints in JSON."""

_AREA: Final = re.compile(r"(\*|[A-Z]{2}(-[A-Z0-9]{1,3})?|[A-Z]{2,16})\Z")
_IMAGE: Final = re.compile(r"[0-9a-f]{64}\Z")
_CACHED: Final = 4096


AssuranceLabel: TypeAlias = Literal["simulated", "cpu", "cpu-and-devices"]
"""The names of `Assurance`'s members in documents."""


class Assurance(IntEnum):
    """How well a node must have proven what it is; a higher one meets every lower one.

    ``simulated`` asks for nothing beyond what the broker's own policy does; ``cpu`` for a hardware TEE that vouches for
    the node's keys; ``cpu-and-devices`` for one that also vouches for the evidence of every device.
    """

    SIMULATED = 0
    CPU = 1
    CPU_AND_DEVICES = 2

    @property
    def label(self) -> AssuranceLabel:
        """Its name in documents."""
        return _LABELS[self]

    @classmethod
    def parse(cls, label: str) -> Self:
        """Read `label`'s text.

        Raises:
            ValueError: there is none of that name.
        """
        for member in cls:
            if member.label == label:
                return member
        raise ValueError(f"{label!r:.40} is none of {', '.join(member.label for member in cls)}")


_LABELS: Final[Mapping[Assurance, AssuranceLabel]] = MappingProxyType(
    {Assurance.SIMULATED: "simulated", Assurance.CPU: "cpu", Assurance.CPU_AND_DEVICES: "cpu-and-devices"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Areas:
    """Where: within some area of every clause of `allowed`, and within none of `forbidden`.

    Clauses are joined by "and", the areas of one clause by "or". So two demands are joined without knowing what a group
    holds, and the result stays right when a group's members change. Always in normal form: a clause that another one
    implies is dropped, and ``*`` stands alone.

    Attributes:
        allowed: clauses of areas; none at all allows every place, an empty clause allows none.
        forbidden: areas; every place where it holds ``*``.
    """

    allowed: frozenset[frozenset[str]] = frozenset()
    forbidden: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        everywhere = frozenset({ANYWHERE})
        clauses = {everywhere if ANYWHERE in clause else frozenset(clause) for clause in self.allowed}
        if len(clauses) > 1:
            clauses.discard(everywhere)
        least = frozenset(clause for clause in clauses if not any(other < clause for other in clauses))
        object.__setattr__(self, "allowed", least)
        object.__setattr__(self, "forbidden", everywhere if ANYWHERE in self.forbidden else frozenset(self.forbidden))

    @classmethod
    def of(cls, allowed: Iterable[str], forbidden: Iterable[str] = ()) -> Self:
        """Within one of `allowed`, within none of `forbidden`."""
        return cls(allowed=frozenset({frozenset(allowed)}), forbidden=frozenset(forbidden))

    def join(self, other: Areas) -> Areas:
        """Both demands at once."""
        return Areas(allowed=self.allowed | other.allowed, forbidden=self.forbidden | other.forbidden)

    @property
    def named(self) -> frozenset[str]:
        """Every area that is named."""
        return frozenset().union(*self.allowed, self.forbidden)

    def clauses(self) -> tuple[tuple[str, ...], ...]:
        """`allowed`, sorted."""
        return tuple(sorted(tuple(sorted(clause)) for clause in self.allowed))

    def to_document(self) -> dict[str, Any]:
        """As JSON; what is empty is left out."""
        document: dict[str, Any] = {}
        if self.allowed:
            document["allowed"] = [list(clause) for clause in self.clauses()]
        if self.forbidden:
            document["forbidden"] = sorted(self.forbidden)
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What must hold wherever data are used. The defaults demand nothing: they are the lattice's bottom.

    Attributes:
        classification: confidentiality class, 0 (public) to 4 (crown jewel).
        purposes: what the data may be used for; None for anything, which no registered asset says.
        residency: where the data may be opened, judged by the site's jurisdiction.
        exposure: whose law may reach the data, judged by every jurisdiction of the site's operator and of the legal
            entities that control it: each must satisfy it.
        sites: where the data may be opened, by the sites' names; None for any.
        retain_until: from then on the data may not be opened; None for ever.
        assurance: how well a node must have proven what it is.
        node_ceiling: how many nodes may hold keys of the asset at a time, over all jobs; None for any number.
        copy_ceiling: how many live leases may cover the asset at a time, over all jobs; None for any number.
        projects, users: for whom the data may be opened; None for anybody in the tenant.
        stages: at which stages of the data life cycle, out of `STAGES`; None for any.
        images: SHA-256 of the code or container images that may open the data, lower-case hex; None for any.
        networks: how jobs that open the data may be connected, out of `NETWORKS`; None for any.
        budgets: most of each of `BUDGETS`; what is not named is not budgeted.
        obligations: duties that travel with every lease, out of `OBLIGATIONS`, with their parameters.
    """

    classification: int = 0
    purposes: frozenset[str] | None = None
    residency: Areas = field(default_factory=Areas)
    exposure: Areas = field(default_factory=Areas)
    sites: frozenset[str] | None = None
    retain_until: int | None = None
    assurance: Assurance = Assurance.SIMULATED
    node_ceiling: int | None = None
    copy_ceiling: int | None = None
    projects: frozenset[str] | None = None
    users: frozenset[str] | None = None
    stages: frozenset[str] | None = None
    images: frozenset[str] | None = None
    networks: frozenset[str] | None = None
    budgets: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    obligations: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def to_document(self) -> dict[str, Any]:
        """As JSON: sorted, and without what demands nothing, so that equal constraints have equal documents."""
        document: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value != getattr(BOTTOM, item.name):
                document[item.name] = _written(value)
        return document

    def to_json(self) -> str:
        """The canonical text (RFC 8785)."""
        return rfc8785.dumps(self.to_document()).decode("utf-8")

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Read a document of `to_document`'s form, in any order.

        Raises:
            ConstraintsError: a member is unknown, of another type, or outside what it may be; it names the field.
        """
        members = _object(document, "constraints")
        unknown = sorted(members.keys() - _READERS.keys())
        if unknown:
            raise ConstraintsError(f"{unknown[0]!a:.60}", f"unknown; the fields are {', '.join(_READERS)}")
        return cls(**{name: _READERS[name](value, name) for name, value in members.items()})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `to_json`'s text, and nothing else.

        Raises:
            ConstraintsError: not JSON, not constraints, or not in canonical form.
        """
        if len(text) > MAX_TEXT:
            raise ConstraintsError("constraints", f"{len(text)} characters, at most {MAX_TEXT} are allowed")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise ConstraintsError("constraints", "not JSON") from None
        constraints = cls.from_document(document)
        if constraints.to_json() != text:
            raise ConstraintsError("constraints", "not in canonical form (RFC 8785, sorted, without what is implied)")
        return constraints


@lru_cache(maxsize=_CACHED)
def parsed(text: str) -> Constraints:
    """`Constraints.parse`, remembered: the same few texts are read for every lease.

    Raises:
        ConstraintsError: as `Constraints.parse`.
    """
    return Constraints.parse(text)


def join(first: Constraints, second: Constraints) -> Constraints:
    """The least constraints that are at least as strict as both."""
    return Constraints(
        **{name: combine(getattr(first, name), getattr(second, name)) for name, combine in _JOINS.items()}
    )


def join_all(constraints: Iterable[Constraints]) -> Constraints:
    """The join of any number; of none it is `BOTTOM`."""
    return reduce(join, constraints, BOTTOM)


def relaxes(old: Constraints, new: Constraints) -> list[str]:
    """The fields in which `new` is freer than `old` or differs without being stricter; none if `new` only tightens."""
    return [
        name
        for name, combine in _JOINS.items()
        if combine(getattr(old, name), getattr(new, name)) != getattr(new, name)
    ]


# --- Places -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Jurisdictions:
    """Which areas there are, as the release policy knows them.

    Attributes:
        countries: ISO 3166-1 alpha-2 codes.
        groups: members of each named group.
        subdivisions: ISO 3166-2 codes; where there is none, any that is well formed is taken for one.
    """

    countries: frozenset[str]
    groups: Mapping[str, frozenset[str]]
    subdivisions: frozenset[str] = frozenset()

    @property
    def places(self) -> frozenset[str]:
        """Every country and subdivision: what a site can stand in."""
        return self.countries | self.subdivisions

    @property
    def areas(self) -> frozenset[str]:
        """Every country, subdivision and group, by name."""
        return self.countries | self.subdivisions | self.groups.keys()

    def known(self, area: str) -> bool:
        """Whether `area` can be judged: a country, a subdivision of one, a group, or ``*``."""
        if area == ANYWHERE or area in self.groups or area in self.countries or area in self.subdivisions:
            return True
        return not self.subdivisions and area.partition("-")[0] in self.countries

    def within(self, place: str, area: str) -> bool:
        """Whether all of `place`, a country or a subdivision, lies in `area`."""
        country = place.partition("-")[0]
        return area in (ANYWHERE, place, country) or country in self.groups.get(area, frozenset())

    def touches(self, place: str, area: str) -> bool:
        """Whether some of `place` may lie in `area`: a site that names its country alone may stand in any part."""
        return self.within(place, area) or area.partition("-")[0] == place

    def satisfies(self, place: str, areas: Areas) -> bool:
        """Whether `place` lies within some area of every clause and is clear of what is forbidden."""
        return all(any(self.within(place, area) for area in clause) for clause in areas.allowed) and not any(
            self.touches(place, area) for area in areas.forbidden
        )

    def universe(self, named: Iterable[str]) -> frozenset[str]:
        """Enough places to tell whether any satisfies areas that name only `named`.

        Every country, and for the countries of which a subdivision is named all of theirs; where these are not known,
        those that are named and one that is not.
        """
        parts = {area for area in named if "-" in area and area.partition("-")[0] in self.countries}
        divided = {part.partition("-")[0] for part in parts}
        others = {part for part in self.subdivisions if part.partition("-")[0] in divided}
        return self.countries | parts | (others or {f"{country}-{_ELSEWHERE}" for country in divided})

    def extent(self, areas: Areas, universe: Iterable[str]) -> frozenset[str]:
        """The places of `universe` that satisfy `areas`."""
        return frozenset(place for place in universe if self.satisfies(place, areas))


_ELSEWHERE: Final = "elsewhere"
"""Stands for the subdivisions of a country that nobody names; no ISO 3166-2 code is as long."""


# --- Conflicts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """A field that nothing can satisfy any more, and why."""

    field: str
    why: str


@dataclass(frozen=True, slots=True, order=True)
class Disagreement:
    """The fewest constraints that leave nothing in a field together, by their names, and why.

    Attributes:
        field: what they disagree about.
        names: whose constraints; every one of them is needed for the conflict.
        why: what is left, and what each of them says.
    """

    field: str
    names: tuple[str, ...]
    why: str


_LEFT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "purposes": "no purpose is left",
        "residency": "no country or subdivision satisfies every clause",
        "exposure": "no jurisdiction satisfies every clause",
        "sites": "no site is left",
        "projects": "no project is left",
        "users": "no user is left",
        "stages": "no stage is left",
        "images": "no image is left",
        "networks": "no network mode is left",
    }
)
"""The fields that can become empty, with what it means."""


def conflicts(constraints: Constraints, jurisdictions: Jurisdictions) -> list[Conflict]:
    """Every field that nothing can satisfy; none where something may."""
    universe = jurisdictions.universe(constraints.residency.named | constraints.exposure.named)
    return [
        Conflict(name, f"{_LEFT[name]}: {_said(constraints, name)}")
        for name in _LEFT
        if _extent(constraints, name, jurisdictions, universe) == frozenset()
    ]


def disagreements(named: Mapping[str, Constraints], jurisdictions: Jurisdictions) -> list[Disagreement]:
    """Who disagrees with whom, where several constraints must hold at once.

    For each field of the join that nothing satisfies: the constraints that conflict by themselves, else every pair that
    does, else a smallest group from which none can be taken away. Empty where the join has no conflict.
    """
    areas: frozenset[str] = frozenset().union(*(item.residency.named | item.exposure.named for item in named.values()))
    universe = jurisdictions.universe(areas)
    found: list[Disagreement] = []
    for name in _LEFT:
        extents: dict[str, frozenset[str]] = {}
        for who in sorted(named):
            extent = _extent(named[who], name, jurisdictions, universe)
            if extent is not None:
                extents[who] = extent
        if extents and not frozenset.intersection(*extents.values()):
            found += [
                Disagreement(
                    name, group, f"{_LEFT[name]}: {'; '.join(f'{who}: {_said(named[who], name)}' for who in group)}"
                )
                for group in _smallest(extents)
            ]
    return found


def _smallest(extents: Mapping[str, frozenset[str]]) -> list[tuple[str, ...]]:
    """Groups whose extents have nothing in common, none larger than it must be; never empty if all have nothing."""
    alone: list[tuple[str, ...]] = [(who,) for who, extent in extents.items() if not extent]
    if alone:
        return alone
    pairs: list[tuple[str, ...]] = [
        pair for pair in combinations(extents, 2) if extents[pair[0]].isdisjoint(extents[pair[1]])
    ]
    if pairs:
        return pairs
    group = list(extents)
    for who in list(group):
        rest = [other for other in group if other != who]
        if not frozenset.intersection(*(extents[other] for other in rest)):
            group = rest
    return [tuple(group)]


def _extent(
    constraints: Constraints, name: str, jurisdictions: Jurisdictions, universe: frozenset[str]
) -> frozenset[str] | None:
    """What satisfies one field, or None where anything does."""
    value = getattr(constraints, name)
    if isinstance(value, Areas):
        # A policy of one's own may name no countries; then nothing can be said about places here.
        asks = value != _NO_AREAS and bool(jurisdictions.countries)
        return jurisdictions.extent(value, universe) if asks else None
    if name == "networks" and NO_EGRESS in constraints.obligations:
        return (NETWORKS if value is None else frozenset(value)) - {EGRESS}
    return None if value is None else frozenset(value)


def _said(constraints: Constraints, name: str) -> str:
    value = getattr(constraints, name)
    if isinstance(value, Areas):
        within = " and ".join(f"in {' or '.join(clause) or 'nothing'}" for clause in value.clauses())
        outside = f"not in {' or '.join(sorted(value.forbidden))}" if value.forbidden else ""
        return ", ".join(filter(None, (within, outside)))
    said = "any" if value is None else f"one of {', '.join(sorted(value))}" if value else "none"
    return f"{said}, with {NO_EGRESS}" if name == "networks" and NO_EGRESS in constraints.obligations else said


# --- How each field is joined -----------------------------------------------------------------------------------------


def _intersection(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _least(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _least_of_each(first: Mapping[str, int], second: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(
        {key: min(first.get(key, MAX_INTEGER), second.get(key, MAX_INTEGER)) for key in first.keys() | second.keys()}
    )


def _duties(
    first: Mapping[str, Mapping[str, int]], second: Mapping[str, Mapping[str, int]]
) -> Mapping[str, Mapping[str, int]]:
    return MappingProxyType(
        {code: _least_of_each(first.get(code, {}), second.get(code, {})) for code in first.keys() | second.keys()}
    )


_JOINS: Final[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        "classification": max,
        "purposes": _intersection,
        "residency": Areas.join,
        "exposure": Areas.join,
        "sites": _intersection,
        "retain_until": _least,
        "assurance": max,
        "node_ceiling": _least,
        "copy_ceiling": _least,
        "projects": _intersection,
        "users": _intersection,
        "stages": _intersection,
        "images": _intersection,
        "networks": _intersection,
        "budgets": _least_of_each,
        "obligations": _duties,
    }
)

# --- Reading and writing ----------------------------------------------------------------------------------------------


def _written(value: object) -> object:
    match value:
        case Areas():
            return value.to_document()
        case Assurance():
            return value.label
        case frozenset():
            return sorted(value)
        case Mapping():
            return {key: _written(item) for key, item in value.items()}
        case _:
            return value


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConstraintsError(name, "must be an object")
    return value


def _integer(value: object, name: str, *, least: int, most: int = MAX_INTEGER) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConstraintsError(name, f"{value!a:.40} is not an integer from {least} to {most}")
    return value


def _texts(value: object, name: str) -> frozenset[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ConstraintsError(name, "must be a list of texts")
    if len(value) > MAX_VALUES:
        raise ConstraintsError(name, f"{len(value)} values, at most {MAX_VALUES} are allowed")
    if len(set(value)) != len(value):
        raise ConstraintsError(name, "a value is there twice")
    return frozenset(value)


def _names(value: object, name: str) -> frozenset[str]:
    names = _texts(value, name)
    for item in sorted(names):
        try:
            check_id(item, name)
        except BindingError:
            raise ConstraintsError(name, f"{item!a:.80} is not an identifier: letters, digits and ._:/@+-") from None
    return names


def _out_of(known: Container[str], listed: str) -> Callable[[object, str], frozenset[str]]:
    def read(value: object, name: str) -> frozenset[str]:
        for item in sorted(values := _texts(value, name)):
            if item not in known:
                raise ConstraintsError(name, f"{item!a:.60} is none of {listed}")
        return values

    return read


def _images(value: object, name: str) -> frozenset[str]:
    for item in sorted(values := _texts(value, name)):
        image_digest(item, name)
    return values


def image_digest(value: str, name: str) -> str:
    """An image's SHA-256 as 64 lower-case hexadecimal digits; `name` is the field in errors.

    Raises:
        ConstraintsError: it is not one.
    """
    if not _IMAGE.match(value):
        raise ConstraintsError(name, f"{value!a:.80} is not a SHA-256 digest: 64 hexadecimal digits in lower case")
    return value


def _clause(value: object, name: str) -> frozenset[str]:
    for item in sorted(areas := _texts(value, name)):
        if not _AREA.match(item):
            raise ConstraintsError(name, f"{item!a:.40} is no ISO 3166 code, no name of a group, and not {ANYWHERE}")
    return areas


def _areas(value: object, name: str) -> Areas:
    members = _object(value, name)
    unknown = sorted(members.keys() - {"allowed", "forbidden"})
    if unknown:
        raise ConstraintsError(f"{name}.{unknown[0]!a:.40}", "unknown; the members are allowed and forbidden")
    clauses = members.get("allowed", [])
    if not isinstance(clauses, Sequence) or isinstance(clauses, str) or len(clauses) > MAX_VALUES:
        raise ConstraintsError(f"{name}.allowed", f"must be a list of at most {MAX_VALUES} clauses")
    return Areas(
        allowed=frozenset(_clause(clause, f"{name}.allowed[{index}]") for index, clause in enumerate(clauses)),
        forbidden=_clause(members.get("forbidden", []), f"{name}.forbidden"),
    )


def _assurance(value: object, name: str) -> Assurance:
    try:
        return Assurance.parse(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ConstraintsError(name, str(error)) from None


def _budgets(value: object, name: str) -> Mapping[str, int]:
    members = _object(value, name)
    _out_of(BUDGETS, ", ".join(sorted(BUDGETS)))(list(members), name)
    return MappingProxyType({key: _integer(item, f"{name}.{key}", least=0) for key, item in members.items()})


def _obligations(value: object, name: str) -> Mapping[str, Mapping[str, int]]:
    duties: dict[str, Mapping[str, int]] = {}
    members = _object(value, name)
    _out_of(OBLIGATIONS, ", ".join(OBLIGATIONS))(list(members), name)
    for code, params in members.items():
        where = f"{name}.{code}"
        given, known = _object(params, where), OBLIGATIONS[code]
        if not given.keys() <= known or (known and not given):
            raise ConstraintsError(where, f"needs {' or '.join(sorted(known)) or 'no parameter'}, and nothing else")
        duties[code] = MappingProxyType({key: _integer(item, f"{where}.{key}", least=1) for key, item in given.items()})
    return MappingProxyType(duties)


_READERS: Final[Mapping[str, Callable[[object, str], Any]]] = MappingProxyType(
    {
        "classification": lambda value, name: _integer(value, name, least=0, most=MAX_CLASSIFICATION),
        "purposes": _names,
        "residency": _areas,
        "exposure": _areas,
        "sites": _names,
        "retain_until": lambda value, name: _integer(value, name, least=0),
        "assurance": _assurance,
        "node_ceiling": lambda value, name: _integer(value, name, least=1),
        "copy_ceiling": lambda value, name: _integer(value, name, least=1),
        "projects": _names,
        "users": _names,
        "stages": _out_of(STAGES, ", ".join(sorted(STAGES))),
        "images": _images,
        "networks": _out_of(NETWORKS, ", ".join(sorted(NETWORKS))),
        "budgets": _budgets,
        "obligations": _obligations,
    }
)

_NO_AREAS: Final = Areas()
BOTTOM: Final = Constraints()
"""The constraints that demand nothing: joined with any, they leave it as it is."""

FIELDS: Final = tuple(item.name for item in fields(Constraints))
"""The fields of `Constraints`, by name."""
