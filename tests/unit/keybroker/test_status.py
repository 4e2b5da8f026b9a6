"""The one map from errors to gRPC: every error of every room that a call can raise has its place in it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import keybroker
import keystead.binding
from attestation import errors as attestation_errors
from audit import errors as audit_errors
from keybroker import errors
from keybroker.denial import DeniedError, Reason
from keybroker.services.status import CODES, MAX_DENIAL, MAX_MESSAGE, code_of, denial_message, to_status
from keystead.v1 import denial_pb2
from policy import errors as policy_errors

MODULES = ("keybroker.errors", "keybroker.denial", "attestation.errors", "policy.errors", "audit.errors")


def trees() -> list[type[Exception]]:
    """Every exception class that the broker's rooms define, wherever it stands."""
    found = set()
    for name in (*MODULES, "keystead.binding"):
        found |= exceptions(importlib.import_module(name), name)
    for info in pkgutil.walk_packages(keybroker.__path__, "keybroker."):
        if ".migrations" not in info.name:
            found |= exceptions(importlib.import_module(info.name), info.name)
    return sorted(found, key=lambda each: (each.__module__, each.__qualname__))


def exceptions(module: object, name: str) -> set[type[Exception]]:
    """The public exception classes that `module` itself defines."""
    return {
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == name
        and not value.__name__.startswith("_")
    }


@pytest.mark.parametrize("error", trees(), ids=lambda error: f"{error.__module__}.{error.__name__}")
def test_every_error_has_a_status_and_a_reason(error: type[Exception]) -> None:
    bases = [base for base in error.__mro__ if base in CODES]
    assert bases, f"{error} is not mapped"
    made = error.__new__(error)
    Exception.__init__(made, "why")
    if issubclass(error, errors.InvalidRequestError):
        made.field = "x"  # type: ignore[attr-defined]
    if issubclass(error, DeniedError):
        made.reasons, made.record_hash = (), b""  # type: ignore[attr-defined]
    code, _, details = to_status(made)
    assert code is CODES[bases[0]]
    assert code is not grpc.StatusCode.OK
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.code, "keystead")  # type: ignore[attr-defined]


def test_the_trees_are_not_empty() -> None:
    names = {error.__name__ for error in trees()}
    assert {"NonceSpentError", "ResultError", "PolicyLimitError", "QueryError", "BindingError", "UnwrapError"} <= names
    assert len(names) > 50


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StoreTimeoutError(timeout=1, outcome_unknown=False), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.NonceSpentError(nonce=b"n", node_id="n", lease_id="l", transcript=b""), grpc.StatusCode.ALREADY_EXISTS),
        (errors.ChallengeExpiredError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.KeyUnwrapError("x"), grpc.StatusCode.INTERNAL),
        (attestation_errors.ResultError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (attestation_errors.ManifestError("x"), grpc.StatusCode.INTERNAL),
        (attestation_errors.TrustAnchorError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (audit_errors.RecordError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (audit_errors.LogCorruptError("x"), grpc.StatusCode.INTERNAL),
        (policy_errors.PolicyInputError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (policy_errors.PolicyLimitError("x"), grpc.StatusCode.UNAVAILABLE),
        (keystead.binding.UnwrapError("x"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_the_nearest_base_decides(error: Exception, code: grpc.StatusCode) -> None:
    assert code_of(error) is code


def test_what_nobody_expected_is_internal_and_says_nothing() -> None:
    for error in (RuntimeError("password=hunter2"), errors.KeyUnwrapError("root.key of /srv"), KeyError("secret")):
        code, message, details = to_status(error)
        assert code is grpc.StatusCode.INTERNAL
        assert str(error) not in message
        assert b"hunter2" not in details
        assert b"/srv" not in details
    assert code_of(RuntimeError()) is None


def test_a_long_text_is_cut() -> None:
    _, message, details = to_status(errors.NotFoundError("asset", "x" * 100_000))
    assert len(message) == MAX_MESSAGE
    assert len(details) < 2 * MAX_MESSAGE


def test_an_invalid_field_is_named() -> None:
    _, _, details = to_status(errors.InvalidRequestError("ref.asset", "no"))
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert dict(info.metadata) == {"field": "ref.asset"}


def reason(code: str, number: int = 0, size: int = 20) -> Reason:
    """A reason of some size."""
    return Reason(code, f"gpu{number}", "e" * size, "a" * size, "the rule", "the remedy")


def test_a_denial_has_every_reason_in_full_while_they_fit() -> None:
    error = DeniedError([reason("A", 1), reason("A", 2), reason("B")], record_hash=b"h" * 32)
    denial = denial_message(error)
    assert [(item.code, item.field, item.message, item.remedy) for item in denial.reasons] == [
        ("A", "gpu1", "the rule", "the remedy"),
        ("A", "gpu2", "the rule", "the remedy"),
        ("B", "gpu0", "the rule", "the remedy"),
    ]
    assert denial.record_hash == b"h" * 32


@pytest.mark.parametrize("size", [20, 200, 5_000])
def test_a_denial_that_is_too_long_has_each_code_and_counts_the_rest(size: int) -> None:
    many = [reason(f"CODE_{code}", number, size) for code in range(6) for number in range(40)]
    denial = denial_message(DeniedError(many, record_hash=b"h" * 32))
    assert denial.ByteSize() <= MAX_DENIAL
    codes = [item.code for item in denial.reasons]
    assert {f"CODE_{code}" for code in range(6)} <= set(codes)
    assert codes[-1] == "MORE_REASONS"
    assert denial.reasons[-1].actual == f"{len(many) - len(codes) + 1} more"
    for code in set(codes):
        assert sum(bool(item.remedy) for item in denial.reasons if item.code == code) == 1
    assert isinstance(denial, denial_pb2.Denial)
