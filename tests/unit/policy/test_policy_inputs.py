"""Models of inputs: strict, and the schemas that the packs are held against."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from pydantic import ValidationError

from policy.errors import PolicyInputError
from policy.gate import stale_files
from policy.inputs import AppraisalInput, ReleaseInput, Settings, SiteInput


def test_schemas_and_settings_are_what_the_models_say() -> None:
    assert stale_files() == (), "run `python -m policy.gate --write`"


def test_an_input_is_read_back(acquire: ReleaseInput, node_evidence: AppraisalInput) -> None:
    assert ReleaseInput.model_validate_json(acquire.to_bytes()) == acquire
    assert AppraisalInput.model_validate_json(node_evidence.to_bytes()) == node_evidence
    assert acquire.to_bytes() == rfc8785.dumps(acquire.model_dump(mode="json"))


def test_inputs_are_strict(acquire: ReleaseInput) -> None:
    document: dict[str, Any] = acquire.to_input()
    for change in ({"now": "2000"}, {"now": -1}, {"now": 2**53}, {"more": 1}, {"stage": "peek"}, {"job": None}):
        with pytest.raises(ValidationError):
            ReleaseInput.model_validate(document | change)
    for name in document:
        with pytest.raises(ValidationError):
            ReleaseInput.model_validate({key: value for key, value in document.items() if key != name})


@pytest.mark.parametrize("jurisdiction", ["de", "DEU", "DE_BY", "DE-", "*", "", "DE-BAYERN", "DE\n"])
def test_a_jurisdiction_is_an_iso_3166_code(jurisdiction: str) -> None:
    with pytest.raises(ValidationError):
        SiteInput(site_id="s", jurisdiction=jurisdiction, state="active", valid_until=0)


def test_claims_hold_no_floats(node_evidence: AppraisalInput) -> None:
    cpu = node_evidence.devices[0].model_copy(update={"claims": {"x": 1.5}})
    with pytest.raises(PolicyInputError, match="float"):
        node_evidence.model_copy(update={"devices": (cpu,)}).to_bytes()


def test_production_settings_are_strict() -> None:
    settings = Settings()
    assert settings.allow_simulated is False
    assert settings.binding_levels == ("key-and-devices",)
    assert settings.to_data() == {"settings": settings.model_dump(mode="json")}
    with pytest.raises(ValidationError):
        Settings.model_validate({"allow_simulatd": True})
