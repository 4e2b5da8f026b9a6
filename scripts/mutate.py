"""Mutation testing of the verifiers with mutmut, by the operators that matter to them.

A mutant is the source with one small defect; a mutant that no test notices shows a rule that no test holds. mutmut
makes the mutants, chooses the tests that reach each and runs them in a fork (https://mutmut.readthedocs.io, version
3.8). This program changes four things about it, because they decide whether the result says anything of a verifier:

- Operators. mutmut never removes a check, which is the one defect asked about here: `_removed_checks` does, for
  ``log.require(…, ok=…)``, ``raise``, ``if``, filters of comprehensions, operands of ``and`` and ``or``, and calls
  whose value nobody uses. Left out is what mypy's strict mode refuses anyway (an argument that is None or absent, an
  assignment of None) and what only changes the wording of a finding or an error.
- Properties. mutmut passes over decorated functions, and much of what bytes mean stands in properties: they are written
  as plain methods first, which is what the decorator does.
- Order. Tests that noticed another mutant of the same function are run first, then the others, quickest first.
- RSA keys of the simulators. Every mutant would spend two seconds on fresh ones; the keys made first are used again.

Not mutated: statements outside functions, that is tables, constants and defaults of data classes.

Usage, from the repository root: ``make mutate``, or ``python scripts/mutate.py run 'attestation.x509*'`` and
``python scripts/mutate.py survivors``; ``show NAME`` and the rest as in mutmut. The mutated copy lies in mutants/;
`[tool.mutmut]` in pyproject.toml names what is mutated, docs/mutation-testing.md what came of it.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import libcst as cst
from cryptography.hazmat.primitives.asymmetric import rsa
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation, mutators
from mutmut.runners import harness
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import change_cwd

ROOT: Final = Path(__file__).resolve().parents[1]
MUTANTS: Final = ROOT / "mutants"
NOTICED: Final = MUTANTS / "noticed"
ERROR: Final = 255
"""Outcome of a mutant whose tests could not be run at all; mutmut counts it as a timeout."""

WORDING: Final = frozenset({"actual", "expected", "reference", "where"})
"""Arguments of findings that only say something to a person."""

KEPT: Final = (
    mutators.operator_number,
    mutators.operator_name,
    mutators.operator_keywords,
    mutators.operator_swap_op,
    mutators.operator_remove_unary_ops,
    mutators.operator_symmetric_string_methods_swap,
    mutators.operator_unsymmetrical_string_methods_swap,
    mutators.operator_if_exp,
    mutators.operator_match,
)
"""mutmut's operators that change what is decided."""

AMD_KEY_SIZE: Final = 4096
RSA_KEYS: Final = 18
"""Simulated AMD authorities of two vendors: root, ASK and ASVK of three product lines each."""

_PARENTHESES: Final = {"lpar": [cst.LeftParen()], "rpar": [cst.RightParen()]}


def _removed_checks(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The same code without one of its checks."""
    true, false = cst.Name("True"), cst.Name("False")
    if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "ok":
        yield node.with_changes(value=true)
    elif isinstance(node, cst.Raise) and node.exc is not None:
        yield cst.Pass()
    elif isinstance(node, cst.If | cst.CompIf):
        yield node.with_changes(test=true)
        yield node.with_changes(test=false)
    elif isinstance(node, cst.BooleanOperation):
        yield node.left.with_changes(**_PARENTHESES)
        yield node.right.with_changes(**_PARENTHESES)
    elif isinstance(node, cst.Expr) and isinstance(node.value, cst.Call):
        yield cst.Pass()


def _is_wording(node: cst.CSTNode) -> bool:
    """Is the node text for people: an error's message, or what a finding says?"""
    if isinstance(node, cst.Arg) and node.keyword is not None:
        return node.keyword.value in WORDING
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name):
        return bool(node.func.value.endswith("Error"))
    return isinstance(node, cst.FormattedString | cst.Annotation)


class _PlainProperties(cst.CSTTransformer):
    """Writes ``@property def name`` as ``def name`` and ``name = property(name)``."""

    def leave_FunctionDef(  # noqa: N802 - libcst names its hooks after its nodes
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        """Take the decorator off and apply it below."""
        names = [each.decorator.value for each in original_node.decorators if isinstance(each.decorator, cst.Name)]
        if names != ["property"] or len(original_node.decorators) != 1:
            return updated_node
        name = original_node.name.value
        applied = cst.parse_statement(f"{name} = property({name})")
        return cst.FlattenSentinel([updated_node.with_changes(decorators=[]), applied])


class _Noticing:
    """Pytest plugin that remembers, for each function, which tests noticed a mutant of it."""

    def __init__(self, mutant: str) -> None:
        self._file = NOTICED / mutant.rpartition("__mutmut_")[0]

    def first(self, tests: list[str]) -> list[str]:
        """`tests` with those that noticed a mutant of the function before the others, the latest first."""
        known = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
        latest = {test: number for number, test in enumerate(known)}
        return sorted(tests, key=lambda test: -latest.get(test, -1))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember a test that fails."""
        if report.failed:
            NOTICED.mkdir(exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")


def _change_mutmut() -> None:
    """Give mutmut these operators, let it see properties, and keep wording out of its sight."""
    mutators.mutation_operators[:] = [
        *(entry for entry in mutators.mutation_operators if entry[1] in KEPT),
        (cst.CSTNode, _removed_checks),
    ]
    skips = file_mutation.MutationVisitor._skip_node_and_children  # noqa: SLF001 - mutmut has no setting for it
    mutate = file_mutation.mutate_file_contents
    run_tests = harness.PytestRunner.run_tests

    def skip(visitor: Any, node: cst.CSTNode) -> bool:
        return _is_wording(node) or bool(skips(visitor, node))

    def mutate_with_properties(filename: str, code: str, *rest: Any) -> Any:
        return mutate(filename, cst.parse_module(code).visit(_PlainProperties()).code, *rest)

    def run_likely_tests_first(runner: Any, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        durations = state().duration_by_test
        order = sorted(tests, key=lambda test: durations.get(test, 0))
        if mutant_name is None:
            return int(run_tests(runner, mutant_name=mutant_name, tests=order))
        noticing = _Noticing(mutant_name)
        with change_cwd("mutants"):
            arguments = runner._pytest_args_regular_run(noticing.first(order))  # noqa: SLF001 - as above
            return int(runner.execute_pytest(arguments, plugins=[noticing]))

    file_mutation.MutationVisitor._skip_node_and_children = skip  # noqa: SLF001 - as above
    mutmut.mutate_file_contents = mutate_with_properties
    harness.PytestRunner.run_tests = run_likely_tests_first


def _reuse_rsa_keys() -> None:
    """Make some RSA keys before anything forks, and let every process take the same ones in the same order."""
    generate = rsa.generate_private_key
    made = [generate(65537, AMD_KEY_SIZE) for _ in range(RSA_KEYS)]
    taken: dict[int, int] = {}

    def reuse(public_exponent: int, key_size: int, backend: Any = None) -> rsa.RSAPrivateKey:
        number = taken.get(os.getpid(), 0)
        if key_size != AMD_KEY_SIZE or number == len(made):
            return generate(public_exponent, key_size, backend)
        taken[os.getpid()] = number + 1
        return made[number]

    rsa.generate_private_key = reuse


def _status(outcome: int | None) -> str:
    """What became of a mutant, in mutmut's words."""
    return "not tested, for an error" if outcome == ERROR else str(status_by_exit_code[outcome])


def _list_survivors() -> None:
    """Print, for each mutated file, how many mutants there are, and what changed in those that no test noticed.

    Those that were not tested are counted and not listed.
    """
    for meta in sorted(MUTANTS.rglob("*.py.meta")):
        outcomes: dict[str, int | None] = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        source = meta.with_suffix("").read_text(encoding="utf-8")
        lines = source.splitlines()
        functions = {
            node.name: lines[node.lineno : node.end_lineno]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef)
        }
        counts = sorted(Counter(map(_status, outcomes.values())).items())
        print(
            meta.relative_to(MUTANTS).with_suffix(""),
            ", ".join(f"{number} {status}" for status, number in counts),
        )
        for name, outcome in outcomes.items():
            if _status(outcome) not in {"killed", "timeout", "not checked"}:
                mutant = name.rpartition(".")[2]
                original = functions[mutant.rpartition("_")[0] + "_orig"]
                print(f"  {name}: {_status(outcome)}")
                for line in difflib.unified_diff(original, functions[mutant], lineterm="", n=0):
                    if not line.startswith(("---", "+++", "@@")):
                        print(f"    {line[0]} {line[1:].strip()}")


def main() -> None:
    """Run mutmut's command line, changed as the module says, or ``survivors``."""
    if sys.argv[1:] == ["survivors"]:
        _list_survivors()
        return
    # Examples of property tests must be the same for every mutant, or survivors would come and go.
    os.environ["CI"] = "true"
    os.environ.setdefault("KEYSTEAD_VECTORS", str(ROOT.parent / "shared" / "vectors"))
    _change_mutmut()
    if sys.argv[1:2] == ["run"]:
        _reuse_rsa_keys()
    mutmut.cli()


if __name__ == "__main__":
    main()
