"""Exit codes: every error becomes one line and one of 0, 1, 2 and 130."""

from __future__ import annotations

import importlib
import inspect

import pytest

from keystead.cli import exits


class _StrangeError(Exception):
    code = "NOT_OURS"


def _errors(module: str) -> list[type[BaseException]]:
    loaded = importlib.import_module(module)
    return [
        member
        for _, member in inspect.getmembers(loaded, inspect.isclass)
        if issubclass(member, Exception) and member.__module__ == module
    ]


def test_every_no_is_the_code_of_an_error_that_exists() -> None:
    modules = (
        "attestation.errors",
        "policy.errors",
        "audit.errors",
        "sealed.errors",
        "keybroker.errors",
        "attester.errors",
        "keystead.binding",
    )
    known = {getattr(error, "code", None) for module in modules for error in _errors(module)}
    assert known >= exits.ANSWERS_NO


def test_a_decision_and_a_failed_verification_are_no() -> None:
    from keystead.binding import UnwrapError
    from sealed.errors import ManifestSignatureError, NotAuthenticError

    for error in (NotAuthenticError("x"), ManifestSignatureError("x"), UnwrapError("x")):
        assert exits.exit_code(error) == exits.NO


def test_wrong_use_and_no_answer_are_two() -> None:
    from attestation.errors import MalformedError
    from sealed.errors import KeyMaterialError

    errors: tuple[BaseException, ...] = (
        exits.UsageError("x"),
        MalformedError("report", "short"),
        KeyMaterialError("x"),
        FileNotFoundError(2, "No such file", "f"),
        ZeroDivisionError("x"),
        _StrangeError("x"),
    )
    assert {exits.exit_code(error) for error in errors} == {exits.UNDECIDED}


def test_interrupt_is_128_plus_sigint() -> None:
    assert exits.exit_code(KeyboardInterrupt()) == 130


def test_a_stranger_with_a_code_is_not_one_of_ours() -> None:
    assert exits.error_code(_StrangeError("x")) is None
    code, line = exits.describe(_StrangeError("boom"))
    assert code == "UNEXPECTED"
    assert "boom" in line
    assert "KEYSTEAD_DEBUG=1" in line


def test_a_missing_dependency_names_its_extra() -> None:
    code, line = exits.describe(ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy.orm"))
    assert code == "EXTRA_MISSING"
    assert "pip install 'keystead[audit]'" in line


def test_a_missing_module_of_nobody_is_unexpected() -> None:
    assert exits.describe(ModuleNotFoundError("No module named 'nonsense'", name="nonsense"))[0] == "UNEXPECTED"


def test_a_missing_file_is_named() -> None:
    assert exits.describe(FileNotFoundError(2, "No such file or directory", "weights.bin")) == (
        "INPUT_OUTPUT",
        "weights.bin: No such file or directory",
    )


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_tracebacks_only_on_request(monkeypatch: pytest.MonkeyPatch, value: str, *, expected: bool) -> None:
    monkeypatch.setenv(exits.DEBUG_VARIABLE, value)
    assert exits.wants_traceback() is expected
