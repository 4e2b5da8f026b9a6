"""``keystead evidence replay`` with files in place of the recorded ones: manifests, OCSP, signed values, a policy.

Each option is tried with a file that says yes and with one that says no, so that an option that is read and then
forgotten shows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from factory import Factory

from attestation.reference.signature import REFERENCE_VALUES_TYPE, key_id, load_private_key, sign_detached
from attestation.simulator.ocsp import SimulatedOcsp
from attestation.simulator.rim import RimDefect, SimulatedRimAuthority
from audit import query
from audit.records import Kind
from keybroker.appraisal_record import Package
from keystead.binding import AssetRef
from keystead.cli import main
from keystead.v1 import audit_service_pb2

DAY = 86_400


@dataclass(frozen=True)
class Kept:
    """An exported appraisal of node-a, which was accepted, and where its broker is."""

    factory: Factory
    data: bytes

    @property
    def package(self) -> Package:
        """The appraisal."""
        return Package.parse(self.data)

    @property
    def at(self) -> int:
        """When it was made, seconds since the epoch."""
        return self.package.record.appraised_at


@pytest.fixture(scope="module")
def kept(shared: tuple[Factory, AssetRef]) -> Kept:
    """The appraisal that a lease of node-a rests on."""
    factory, ref = shared
    factory.acquire("node-a", factory.authorize(ref), ref)
    factory.broker.sequencer.run_once(factory.clock())
    with factory.broker.read() as connection:
        page = query.query(connection, query.Filter(kind=Kind.LEASE_GRANTED), limit=1, cursor="")
    request = audit_service_pb2.GetAppraisalRequest(leaf_index=page.entries[-1].index)
    return Kept(factory, b"".join(piece.package for piece in factory.stubs("auditor").audit.GetAppraisal(request)))


Replay = Callable[..., tuple[int, Any]]


@pytest.fixture
def replay(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Replay:
    """Runs ``keystead evidence replay`` over the appraisal, in `tmp_path`; its exit code and what it prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_bytes(kept.data)

    def call(*options: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main.run(["evidence", "replay", "a.json", *options, "--json"])
        shown = json.loads(capsys.readouterr().out)
        assert shown.get("identical", True), "what was recorded does not depend on the options"
        return code, shown

    return call


def given(option: str, folder: Path, contents: dict[str, bytes]) -> list[str]:
    """`option` for each of these files, which are written first."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [word for name in contents for word in (option, name)]


def findings(said: Any, change: str = "findings_new") -> set[tuple[str, str]]:
    """Slots and codes of the findings that changed."""
    return {(each["slot"], each["code"]) for each in said["instead"]["changes"][change]}


def test_manifests_stand_in_for_none(kept: Kept, replay: Replay, tmp_path: Path) -> None:
    authority = SimulatedRimAuthority(vendor=kept.factory.vendors.nvidia, not_before=kept.at - DAY)
    gpu = kept.factory.nodes["node-a"].gpus[0]
    assert not kept.package.material().of("rims")
    both = {"driver.xml": authority.driver(gpu), "vbios.xml": authority.vbios(gpu)}
    code, said = replay(*given("--rim", tmp_path, both))
    assert (code, said["instead"]["by"]) == (0, ["rims driver.xml, vbios.xml"])
    assert findings(said) == set()
    compared = [
        (each["slot"], each["before"]["actual"], each["after"]["actual"].partition(";")[0])
        for each in said["instead"]["changes"]["findings_changed"]
    ]
    assert compared == [("gpu0", "0 of 64", "32 of 64"), ("gpu1", "0 of 64", "32 of 64")]
    unsound = {"driver.xml": authority.driver(gpu, defects=[RimDefect.ALTERED]), "vbios.xml": authority.vbios(gpu)}
    code, said = replay(*given("--rim", tmp_path, unsound))
    assert (code, said["instead"]["allow"]) == (1, False)
    assert {("gpu0", "RIM_DIGEST"), ("gpu1", "RIM_DIGEST")} <= findings(said)


def test_ocsp_responses_stand_in_for_none(kept: Kept, replay: Replay, tmp_path: Path) -> None:
    service, gpus = SimulatedOcsp(vendor=kept.factory.vendors.nvidia), kept.factory.nodes["node-a"].gpus
    assert not kept.package.material().of("ocsp")

    def responses(*, of_the_first: tuple[int, ...] = (), lifetime: int = DAY) -> list[str]:
        contents = {}
        for number, gpu in enumerate(gpus):
            for position, each in enumerate(
                service.responses(
                    gpu.certificates(),
                    this_update=kept.at - 60,
                    first=1,
                    revoked=of_the_first if number == 0 else (),
                    lifetime=lifetime,
                )
            ):
                contents[f"{number}.{position}.ocsp"] = each
        return given("--ocsp", tmp_path, contents)

    code, said = replay(*responses())
    assert code == 0, said
    assert findings(said) == set()
    assert {slot for slot, _ in findings(said, "findings_gone")} == {"gpu0", "gpu1"}
    # The second GPU of the node has certificates of its own up to the provisioner's, which nobody revoked.
    code, said = replay(*responses(of_the_first=(1,)))
    assert (code, said["instead"]["allow"]) == (1, False)
    assert findings(said) == {("gpu0", "OCSP_STATUS")}
    code, said = replay(*responses(lifetime=30))
    assert code == 1
    assert {("gpu0", "OCSP_WINDOW"), ("gpu1", "OCSP_WINDOW")} <= findings(said)


def test_signed_reference_values_are_held_to_the_recorded_signers(kept: Kept, replay: Replay, tmp_path: Path) -> None:
    (recorded,) = kept.package.material().of("reference_values")
    ours = load_private_key((kept.factory.installation.directory / "reference.key").read_bytes(), name="reference.key")
    stricter = recorded.content.replace(b'modes = ["spt", "mpt", "ppcie"]', b'modes = ["ppcie"]')
    assert stricter != recorded.content
    signature = tmp_path / "other.toml.jws"

    def judged(content: bytes, signed: str | None) -> tuple[int, Any]:
        (tmp_path / "other.toml").write_bytes(content)
        signature.unlink(missing_ok=True)
        if signed is not None:
            signature.write_text(signed)
        return replay("--reference", "other.toml")

    def sign(content: bytes, key: Ed25519PrivateKey = ours) -> str:
        return sign_detached(content, key=key, kind=REFERENCE_VALUES_TYPE)

    def vouching(said: Any) -> str:
        """Who vouches for the reference values that the first new finding about the mode quotes."""
        new = said["instead"]["changes"]["findings_new"]
        return str(next(each["reference"] for each in new if each["code"] == "NVGPU_MODE"))

    same = recorded.content + b"\n# reviewed\n"
    code, said = judged(same, sign(same))
    assert code == 0, said
    assert findings(said) == findings(said, "findings_gone") == set()
    code, said = judged(stricter, sign(stricter))
    assert code == 1
    assert findings(said) == {("gpu0", "NVGPU_MODE"), ("gpu1", "NVGPU_MODE")}
    assert f"signed by {key_id(ours.public_key())}" in vouching(said)
    # A signature of somebody else, of another file, or none that can be read: no values, rather than unsigned ones.
    for wrong in (sign(stricter, Ed25519PrivateKey.generate()), sign(recorded.content), "no signature"):
        code, said = judged(stricter, wrong)
        assert code == 2
        assert "other.toml" in said["error"]["message"]
    # Without a signature they are what a draft is: judged by, and said to be unsigned.
    code, said = judged(stricter, None)
    assert code == 1
    assert findings(said) >= {("gpu0", "NVGPU_MODE")}
    assert "unsigned" in vouching(said)


@pytest.mark.opa
def test_another_compiled_pack_decides(
    kept: Kept, replay: Replay, opa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from policy.sources import PACKS

    monkeypatch.setenv("KEYSTEAD_OPA", str(opa))
    shutil.copytree(PACKS, tmp_path / "packs")
    source = tmp_path / "packs" / "appraisal" / "appraisal.rego"
    lenient = "_origin_accepted(_) if data.settings.allow_simulated == true\n"
    text = source.read_text()
    assert lenient in text
    source.write_text(text.replace(lenient, "").replace("appraisal/1.0.0", "appraisal/1.0.1"))
    assert main.run(["policy", "build", str(source.parent), "-o", "strict.tar.gz"]) == 0
    code, said = replay("--policy", "strict.tar.gz")
    assert (code, said["allow"], said["instead"]["allow"]) == (1, True, False)
    assert said["instead"]["policy_digest"] != said["policy_digest"]
    assert findings(said) == findings(said, "findings_gone") == set()
    denials = [(each["code"], each["field"]) for each in said["instead"]["changes"]["deny_new"]]
    assert sorted(denials) == [("SIMULATED_DEVICE", f"{slot} simulated") for slot in ("cpu0", "gpu0", "gpu1")]
    assert kept.package.policy().bundle != (tmp_path / "strict.tar.gz").read_bytes()
    (tmp_path / "strict.tar.gz").write_bytes(b"no bundle")
    code, said = replay("--policy", "strict.tar.gz")
    assert (code, said["error"]["code"]) == (2, "BAD_POLICY_BUNDLE")
