"""The allow-list of built-ins that packs may use, and the capabilities file that makes opa enforce it.

Allowed is what OPA's Wasm target implements natively (``internal/compiler/wasm/wasm.go`` of OPA 1.22.2) *and* is total
over operands of the right type. Wasm turns a built-in's error into undefined where ``opa eval`` can be told to halt; a
built-in that cannot fail has one semantics in both. Left out although native:

- ``div``, ``rem``, ``to_number``, ``format_int``, ``substring``, ``indexof``, ``json.*``, ``base64*.decode``,
  ``numbers.range``, ``net.cidr_*``, ``regex.*``, ``glob.match``, ``bits.*``: fail on some values.
- ``mul``, ``product``, ``sum``: leave 64 bits, beyond which Wasm and topdown differ (opa issue 3711).
- ``lower``, ``upper``, ``trim``, ``trim_left``, ``trim_right``, ``trim_space``, ``strings.reverse``: depend on Unicode
  tables; names that a policy compares are ASCII and compared exactly.
- ``all``, ``any``, ``re_match``, ``set_diff``, ``cast_*``: deprecated.

Never allowed, because not native: ``http.send``, ``net.lookup_ip_addr``, ``time.*``, ``rand.intn``, ``uuid.*``,
``opa.runtime``, ``io.jwt.*``, ``crypto.*``. Time is ``input.now``; cryptography is done before a policy is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from policy.errors import OpaError

ALLOWED: Final[Mapping[str, str]] = {
    # Unification, comparison and membership: the language itself.
    "assign": "`:=`, rewritten away",
    "eq": "`=`, compiled away",
    "equal": "`==`",
    "neq": "`!=`",
    "lt": "`<`, total order over all values",
    "lte": "`<=`",
    "gt": "`>`",
    "gte": "`>=`",
    "internal.member_2": "`x in xs`",
    "internal.member_3": "`k, v in xs`",
    "internal.template_string": '`$"…"`: text of a value, `<undefined>` where there is none',
    "rego.metadata.rule": "resolved when the pack is compiled: messages come from annotations",
    "rego.metadata.chain": "resolved when the pack is compiled: the pack's version",
    # Integers; inputs hold at most 53 bits, so that sums and differences stay within 64.
    "plus": "lease ends",
    "minus": "remaining times, set difference",
    "abs": "clock differences",
    "floor": "is this number an integer?",
    # Collections.
    "count": "sizes",
    "max": "worst status",
    "min": "lattice of ceilings",
    "sort": "stable order",
    "and": "set intersection",
    "or": "set union",
    "intersection": "of a set of sets",
    "union": "of a set of sets",
    "array.concat": "lists",
    "array.slice": "lists; clamps",
    "array.reverse": "lists",
    "object.get": "a member or a default",
    "object.keys": "names of an object",
    "object.union": "overlays",
    "object.union_n": "overlays",
    "object.filter": "projections",
    "object.remove": "projections",
    "walk": "every value within a value",
    # Text.
    "concat": "joins",
    "contains": "text in text",
    "startswith": "prefixes",
    "endswith": "suffixes",
    "split": "parts",
    "replace": "texts",
    "trim_prefix": "prefixes",
    "trim_suffix": "suffixes",
    # Types.
    "is_array": "guards before `every` and `count`",
    "is_boolean": "guards",
    "is_null": "guards",
    "is_number": "guards",
    "is_object": "guards",
    "is_set": "guards",
    "is_string": "guards",
    "type_name": "what a wrong value is, in denials",
}
"""Each allowed built-in with its use."""

_FEATURES: Final = ("keywords_in_refs", "rego_v1", "template_strings")


def render(current: Mapping[str, object]) -> str:
    """The text of ``capabilities.json``: `current` (``opa capabilities --current``) narrowed to `ALLOWED`.

    Raises:
        OpaError: this opa lacks a built-in or feature that the list names.
    """
    builtins, features = current.get("builtins"), current.get("features")
    if not isinstance(builtins, list) or not isinstance(features, list):
        raise OpaError("opa: its capabilities have no builtins or no features")
    kept = [
        {name: value for name, value in builtin.items() if name in {"name", "decl", "infix", "relation"}}
        for builtin in builtins
        if builtin["name"] in ALLOWED
    ]
    missing = ALLOWED.keys() - {builtin["name"] for builtin in kept}
    if missing or not set(_FEATURES) <= set(features):
        raise OpaError(f"opa: its capabilities lack {sorted(missing) or _FEATURES}")
    document = {"builtins": kept, "future_keywords": [], "features": list(_FEATURES), "allow_net": []}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
