"""Errors of the policy room: raised when no decision can be had.

::

    PolicyError
    ├── BundleError               a policy bundle that cannot be read, or is not one pack compiled to Wasm
    ├── PolicyUndecidedError      the policy could not decide: undefined, trapped, or a malformed document
    │   ├── PolicyInputError      an input or data document that a policy may not be asked about
    │   └── PolicyLimitError      the policy ran out of fuel or memory
    └── OpaError                  the opa command line could not do what was asked
        ├── OpaMissingError       no opa was found
        ├── OpaVersionError       an opa of another version than the pinned one
        ├── OpaTimeoutError       opa did not finish in time
        └── PackRejectedError     opa judged the sources and said no

An exception means "could not decide" and must be treated as a denial. What a policy decided against is a
`policy.decision.Denial`.
"""

from __future__ import annotations

from typing import ClassVar


class PolicyError(Exception):
    """Base of this package's errors; `code` is stable, the text is for people."""

    code: ClassVar[str] = "POLICY_ERROR"


class BundleError(PolicyError):
    """A policy bundle that cannot be read, breaks a limit, or is not exactly one pack compiled to Wasm."""

    code: ClassVar[str] = "BAD_POLICY_BUNDLE"


class PolicyUndecidedError(PolicyError):
    """The policy could not decide: its entrypoint is undefined, it trapped, or its document is malformed."""

    code: ClassVar[str] = "POLICY_UNDECIDED"


class PolicyInputError(PolicyUndecidedError):
    """An input or data document that a policy may not be asked about: not JSON, too large, or with floats in it."""

    code: ClassVar[str] = "POLICY_INPUT"


class PolicyLimitError(PolicyUndecidedError):
    """The policy ran out of its fuel or memory before it decided."""

    code: ClassVar[str] = "POLICY_LIMIT"


class OpaError(PolicyError):
    """The opa command line could not do what was asked; the text is opa's own."""

    code: ClassVar[str] = "OPA_FAILED"


class OpaMissingError(OpaError):
    """No opa was found in any of the places that are searched."""

    code: ClassVar[str] = "OPA_NOT_FOUND"


class OpaVersionError(OpaError):
    """An opa was found, but of another version than the pinned one."""

    code: ClassVar[str] = "OPA_VERSION"


class OpaTimeoutError(OpaError):
    """The opa command line did not finish in the time it was given."""

    code: ClassVar[str] = "OPA_TIMEOUT"


class PackRejectedError(OpaError):
    """Rego sources that opa judged and rejected: type errors, an unknown built-in, a schema that does not fit."""

    code: ClassVar[str] = "PACK_REJECTED"
