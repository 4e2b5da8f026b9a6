"""Why the broker refuses: every reason that its code and the shipped policies can give, read from their sources.

The broker's reasons are the literal ``Reason`` calls of `keybroker`; a policy's are the annotations of its rules
(``# METADATA`` with ``custom.code``). There is no second list to keep: ``docs/reference/reasons.md`` is generated
from here, and ``keystead evidence explain`` reads the same.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKS: Final = ("release", "appraisal")
"""The shipped policies that deny."""

_REASON_FIELDS: Final = 6
_BLOCK: Final = re.compile(r"(?:^# ?.*\n)+", re.MULTILINE)
_ANNOTATION: Final = re.compile(r"^#\s+(title|code|field|remedy): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class StatedReason:
    """One reason for a refusal, as its source states it.

    Attributes:
        code: stable, UPPER_SNAKE.
        message: the rule in words.
        field: what is checked.
        remedy: what can be done about it.
        origin: who gives it: ``the broker`` or ``the release policy``.
    """

    code: str
    message: str
    field: str
    remedy: str
    origin: str


def broker_reasons() -> list[StatedReason]:
    """Every reason that the broker itself gives, sorted; what is not written out literally is left general."""
    import keybroker

    found: set[StatedReason] = set()
    for folder in keybroker.__path__:
        for file in sorted(Path(folder).rglob("*.py")):
            for call in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Reason":
                    texts = [part.value if isinstance(part, ast.Constant) else None for part in call.args]
                    if len(texts) == _REASON_FIELDS and isinstance(texts[0], str):
                        # What is not written out literally, as a device's slot, is not known here.
                        field, message, remedy = texts[1], texts[4], texts[5]
                        named = "a device" if field is None else str(field)
                        found.add(StatedReason(texts[0], str(message), named, str(remedy), "the broker"))
    return sorted(found)


def pack_reasons(pack: str) -> list[StatedReason]:
    """Everything that the shipped policy `pack` denies, from its rules' annotations, by code.

    Raises:
        RuntimeError: no rule is annotated: the form of the annotations has changed.
    """
    from policy.sources import PACKS as ROOT

    found: dict[str, StatedReason] = {}
    for file in sorted((ROOT / pack).glob("*.rego")):
        for block in _BLOCK.findall(file.read_text(encoding="utf-8")):
            named = dict(_ANNOTATION.findall(block))
            if "code" in named:
                found[named["code"]] = StatedReason(
                    named["code"], named["title"], named["field"], named["remedy"], f"the {pack} policy"
                )
    if not found:
        raise RuntimeError(f"policy pack {pack}: no annotated denial; has the form of the annotations changed?")
    return [found[code] for code in sorted(found)]
