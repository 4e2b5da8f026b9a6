"""The gate for the packs that ship: ``python -m policy.gate`` exits 0 where everything holds, 1 where anything differs.

Generated files, formatting, strict checking against schemas and the allowed built-ins, tests that reach every line,
and compiled packs that are what their sources compile to. Without `opa` only the generated files can be compared; the
rest is skipped, and said to be. ``python -m policy.gate --write`` writes what is generated instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from policy import capabilities
from policy.errors import OpaError, OpaMissingError, OpaVersionError, PackRejectedError, PolicyError
from policy.inputs import SCHEMAS as MODELS
from policy.inputs import render_schema, render_settings, render_shapes
from policy.jurisdictions import render_jurisdictions
from policy.opa import CAPABILITIES, OPA_VERSION, Opa
from policy.sources import (
    COMPILED,
    DEFAULT_PACKS,
    PACKS,
    SCHEMAS,
    compile_pack,
    default_bundle,
    write_default_bundles,
)

SETTINGS: Final = PACKS / "settings" / "data.json"
"""Defaults of `policy.inputs.Settings`, generated."""

SHAPES: Final = PACKS / "shapes" / "data.json"
"""Types of inputs and settings as `lib.shape` reads them, generated."""

JURISDICTIONS: Final = PACKS / "jurisdictions" / "data.json"
"""Countries, subdivisions and groups, generated from `policy.jurisdictions`."""

REGENERATE: Final = "run `python -m policy.gate --write`"


def stale_files() -> tuple[Path, ...]:
    """Generated files that differ from what their models and pycountry say now; needs no opa."""
    wanted = {SCHEMAS / f"{name}.json": render_schema(name) for name in MODELS}
    wanted |= {SETTINGS: render_settings(), SHAPES: render_shapes(), JURISDICTIONS: render_jurisdictions()}
    return tuple(path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text)


def write_generated(opa: Opa) -> None:
    """Write schemas, settings, capabilities and compiled packs from their sources.

    Raises:
        OpaError: opa found fault with a pack.
        BundleError: a pack has no single entrypoint.
    """
    for name in MODELS:
        (SCHEMAS / f"{name}.json").write_text(render_schema(name), "utf-8")
    SETTINGS.write_text(render_settings(), "utf-8")
    SHAPES.write_text(render_shapes(), "utf-8")
    JURISDICTIONS.write_text(render_jurisdictions(), "utf-8")
    CAPABILITIES.write_text(capabilities.render(opa.capabilities()), "utf-8")
    write_default_bundles(opa)


def check_generated() -> str:
    """Schemas and settings are what the models say.

    Raises:
        PackRejectedError: a file differs.
    """
    stale = stale_files()
    if stale:
        raise PackRejectedError(f"{', '.join(path.name for path in stale)} differ from their models; {REGENERATE}")
    return f"{len(MODELS) + 3} files are what policy.inputs and policy.jurisdictions say"


def check_capabilities(opa: Opa) -> str:
    """``capabilities.json`` is what the allow-list makes of this opa.

    Raises:
        PackRejectedError: it differs.
    """
    if CAPABILITIES.read_text("utf-8") != capabilities.render(opa.capabilities()):
        raise PackRejectedError(f"capabilities.json differs from the allow-list; {REGENERATE}")
    return f"{len(capabilities.ALLOWED)} built-ins allowed"


def check_format(opa: Opa) -> str:
    """Every file is formatted.

    Raises:
        PackRejectedError: a file is not.
    """
    unformatted = opa.unformatted(PACKS)
    if unformatted:
        raise PackRejectedError(f"{', '.join(unformatted)} not formatted; run `keystead policy fmt --write`")
    return "formatted"


def check_types(opa: Opa) -> str:
    """Every module compiles strictly.

    Raises:
        PackRejectedError: one does not.
    """
    opa.check(PACKS, schemas=SCHEMAS)
    return "strict, against schemas and allowed built-ins"


def check_tests(opa: Opa) -> str:
    """Every test passes and every line is reached.

    Raises:
        PackRejectedError: a test fails, or a line is not reached.
    """
    report = opa.test(PACKS)
    if not report.ok:
        raise PackRejectedError(f"failed: {', '.join(report.failed) or 'none'}; not reached: {report.not_covered}")
    return f"{report.passed} tests passed, every line reached"


def check_compiled(opa: Opa) -> str:
    """Each compiled pack has the digest that its sources compile to.

    Raises:
        PackRejectedError: one differs.
        BundleError: one cannot be read.
    """
    for name in DEFAULT_PACKS:
        built, _ = compile_pack(opa, PACKS / name)
        if built.digest != default_bundle(name).digest:
            raise PackRejectedError(f"{COMPILED.name}/{name}.tar.gz is not what its sources compile to; {REGENERATE}")
    return f"{', '.join(DEFAULT_PACKS)} are what their sources compile to"


_WITH_OPA: Final[Sequence[tuple[str, Callable[[Opa], str]]]] = (
    ("capabilities", check_capabilities),
    ("fmt", check_format),
    ("check", check_types),
    ("test", check_tests),
    ("compiled", check_compiled),
)


def run(arguments: Sequence[str], out: TextIO) -> int:
    """Carry out the gate, one line per step; returns the exit code (0 holds, 1 differs, 2 wrong use)."""
    if list(arguments) not in ([], ["--write"]):
        out.write("usage: python -m policy.gate [--write]\n")
        return 2
    try:
        opa = Opa.find()
    except (OpaMissingError, OpaVersionError) as error:
        out.write(f"policy: NO OPA {OPA_VERSION}: SKIPPED fmt, check, test and comparing compiled packs: {error}\n")
        return 2 if arguments else _step("generated", check_generated, out)
    except OpaError as error:
        out.write(f"policy: FAILED: {error}\n")
        return 1
    if arguments:
        write_generated(opa)
        out.write("policy: written\n")
        return 0
    codes = [_step("generated", check_generated, out)]
    codes += [_step(name, partial(step, opa), out) for name, step in _WITH_OPA]
    return max(codes)


def _step(name: str, step: Callable[[], str], out: TextIO) -> int:
    try:
        out.write(f"policy {name}: {step()}\n")
    except PolicyError as error:
        out.write(f"policy {name}: FAILED: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], sys.stdout))
