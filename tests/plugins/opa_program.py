"""Pytest plugin: the pinned `opa`, found as the product finds it, or a loud skip."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def opa() -> Path:
    """The pinned opa program."""
    # Imported here, so that tests of the other rooms do not need the policy room.
    from policy.errors import OpaMissingError, OpaVersionError
    from policy.opa import OPA_VERSION, Opa

    try:
        return Opa.find().path
    except (OpaMissingError, OpaVersionError) as error:
        pytest.skip(f"NO OPA {OPA_VERSION}: {error}; `make setup` builds it where there is a Go")
