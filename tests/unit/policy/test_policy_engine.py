"""The engine: what the module may do, what it may use, and that everything else is no decision."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import wasmtime

from policy.bundle import Bundle
from policy.engine import PolicyEngine
from policy.errors import BundleError, PolicyInputError, PolicyLimitError, PolicyUndecidedError
from policy.inputs import AppraisalInput, ReleaseInput, Settings
from policy.sources import default_bundle

ALLOW = '[{"result":{"allow":true,"deny":[],"obligations":[],"policy_version":"p/1"}}]'


def module(  # a module that speaks OPA's ABI and evaluates `body`; texts stand at 1024, 2048, 3072 and 4096
    body: str = "i32.const 4096",
    *,
    result: str = ALLOW,
    builtins: str = "{}",
    entrypoints: str = '{"p/decision":0}',
    minor: int = 3,
    imports: str = "",
    parse: str = "i32.const 1",
) -> bytes:
    def text(value: str) -> str:
        return "".join(f"\\{byte:02x}" for byte in value.encode()) + "\\00"

    return bytes(
        wasmtime.wat2wasm(
            f"""(module
            (import "env" "memory" (memory 1))
            (import "env" "opa_abort" (func $abort (param i32)))
            (import "env" "opa_builtin0" (func $builtin0 (param i32 i32) (result i32)))
            {imports}
            (global (export "opa_wasm_abi_version") i32 (i32.const 1))
            (global (export "opa_wasm_abi_minor_version") i32 (i32.const {minor}))
            (data (i32.const 1024) "{text(builtins)}")
            (data (i32.const 2048) "{text(entrypoints)}")
            (data (i32.const 3072) "{text("opa_malloc: failed")}")
            (data (i32.const 4096) "{text(result)}")
            (func (export "builtins") (result i32) i32.const 1024)
            (func (export "entrypoints") (result i32) i32.const 2048)
            (func (export "opa_json_dump") (param i32) (result i32) local.get 0)
            (func (export "opa_malloc") (param i32) (result i32) i32.const 16384)
            (func (export "opa_json_parse") (param i32 i32) (result i32) {parse})
            (func (export "opa_heap_blocks_stash"))
            (func (export "opa_heap_ptr_get") (result i32) i32.const 65536)
            (func (export "opa_eval") (param i32 i32 i32 i32 i32 i32 i32) (result i32) {body}))"""
        )
    )


def bundle(wasm: bytes) -> Bundle:
    manifest = {"wasm": [{"entrypoint": "p/decision", "module": "/policy.wasm"}]}
    return Bundle.from_files(
        {
            ".manifest": json.dumps(manifest).encode(),
            "data.json": b'{"d":{"a":1}}',
            "policy.wasm": wasm,
            "p/p.rego": b"",
        }
    )


def engine(wasm: bytes, **limits: int) -> PolicyEngine:
    return PolicyEngine(bundle(wasm), **limits)


# --- The packs that ship ----------------------------------------------------------------------------------------------


def test_the_release_pack_decides(release: PolicyEngine, acquire: ReleaseInput) -> None:
    decision = release.evaluate(acquire.to_input())
    assert decision.allow
    assert [obligation.to_json() for obligation in decision.obligations] == [
        {"code": "lease_ceiling", "params": {"seconds": 3600}},
        {"code": "no_logits", "params": {}},
        {"code": "re_attest", "params": {"seconds": 900}},
        {"code": "zeroise_on_end", "params": {}},
    ]
    assert decision.policy_version == "release/2.1.0"
    closed = acquire.model_copy(update={"job": acquire.job.model_copy(update={"state": "closed"})})
    denied = release.evaluate(closed.to_input())
    assert not denied.allow
    assert [denial.code for denial in denied.deny] == ["JOB_CLOSED"]
    assert denied.deny[0].message == "The job has been closed"
    assert denied.obligations == ()


def test_the_appraisal_pack_decides(appraisal: PolicyEngine, node_evidence: AppraisalInput) -> None:
    decision = appraisal.evaluate(node_evidence.to_input())
    assert decision.allow
    assert decision.trust_vectors["cpu0"] == {
        "configuration": 2,
        "executables": 0,
        "hardware": 32,
        "instance-identity": 2,
        "runtime-opaque": 32,
    }


def test_evaluation_is_the_same_whatever_came_before(
    release: PolicyEngine, acquire: ReleaseInput, appraisal: PolicyEngine
) -> None:
    allowed = release.evaluate(acquire.to_input())
    empty = release.evaluate({})
    assert len(empty.deny) > 40
    for _ in range(20):
        assert release.evaluate({}) == empty
        assert release.evaluate(acquire.to_input()) == allowed
    assert PolicyEngine(default_bundle("release")).evaluate({}) == empty


def test_stored_bytes_decide_as_the_document_did(release: PolicyEngine, acquire: ReleaseInput) -> None:
    assert release.evaluate_bytes(acquire.to_bytes()) == release.evaluate(acquire.to_input())


def test_threads_share_an_engine(release: PolicyEngine, acquire: ReleaseInput) -> None:
    documents = [acquire.model_copy(update={"now": now}).to_bytes() for now in (500, 2000, 9500)] * 40
    expected = [release.evaluate_bytes(document) for document in documents[:3]] * 40
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(release.evaluate_bytes, documents)) == expected


# --- Data and digest --------------------------------------------------------------------------------------------------


def test_settings_are_laid_over_the_packs_own(node_evidence: AppraisalInput) -> None:
    cpu = node_evidence.devices[0].model_copy(update={"simulated": True})
    simulated = node_evidence.model_copy(update={"devices": (cpu, *node_evidence.devices[1:])}).to_input()
    pack = default_bundle("appraisal")
    assert [d.code for d in PolicyEngine(pack).evaluate(simulated).deny] == ["SIMULATED_DEVICE"]
    for data in ({"settings": {"allow_simulated": True}}, Settings(allow_simulated=True).to_data()):
        lenient = PolicyEngine(pack, data=data)
        assert lenient.evaluate(simulated).allow
        assert lenient.data["jurisdictions"] == pack.data["jurisdictions"]


def test_the_digest_names_bundle_and_data() -> None:
    pack = default_bundle("release")
    plain = PolicyEngine(pack)
    assert len(plain.digest) == 64
    assert plain.digest == PolicyEngine(pack, data={}).digest
    other = PolicyEngine(pack, data={"settings": {"re_attest": 60, "lease_ceiling": 120}})
    assert other.digest != plain.digest
    assert other.digest == PolicyEngine(pack, data={"settings": {"lease_ceiling": 120, "re_attest": 60}}).digest
    assert PolicyEngine(default_bundle("appraisal")).digest != plain.digest


@pytest.mark.parametrize("name", ["release", "lib", "shapes"])
def test_data_may_not_stand_where_rules_are(name: str) -> None:
    with pytest.raises(PolicyInputError, match=f"{name} belong to"):
        PolicyEngine(default_bundle("release"), data={name: {"allow": True}})


def test_data_and_input_hold_no_floats(release: PolicyEngine) -> None:
    with pytest.raises(PolicyInputError, match="policy data"):
        PolicyEngine(default_bundle("release"), data={"settings": {"re_attest": 1.5}})
    with pytest.raises(PolicyInputError, match="policy input"):
        release.evaluate({"now": 1.5})


# --- What a module may not do -----------------------------------------------------------------------------------------


def test_a_module_that_allows() -> None:
    assert engine(module()).evaluate({}).allow


@pytest.mark.parametrize(
    ("wasm", "why"),
    [
        (b"\0asm", "not a Wasm module"),
        (module(minor=2), "ABI 1.2"),
        (module(builtins='{"http.send":0}'), "needs built-ins"),
        (module(builtins="[]"), "not a JSON object"),
        (module(entrypoints='{"q/decision":0}'), "decides"),
        (module(entrypoints='{"p/decision":0,"p/other":1}'), "decides"),
        (module(entrypoints='{"p/decision":"0"}'), "no number"),
        (module(parse="i32.const 0"), "could not parse its data"),
        (module(parse="unreachable"), "does not start"),
        (module(parse="(loop br 0) i32.const 1"), "does not start"),
        (module(imports='(import "env" "clock" (global i32))'), "asks for env.clock"),
        (module(imports='(import "wasi" "clock" (func))'), "asks for wasi.clock"),
        (bytes(wasmtime.wat2wasm('(module (import "env" "memory" (memory 1)))')), "ABI None.None"),
        (bytes(wasmtime.wat2wasm('(module (import "env" "memory" (memory 60000)))')), "does not start"),
    ],
)
def test_a_module_that_may_not_be_used_is_refused_at_once(wasm: bytes, why: str) -> None:
    with pytest.raises(BundleError, match=why):
        engine(wasm, fuel=1_000_000)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("unreachable", "trapped"),
        ("i32.const -4 i32.load", "trapped"),
        ("i32.const 4096 call $abort i32.const 0", "aborted"),
        ("i32.const 0 i32.const 0 call $builtin0", "opa_builtin0, which no pack may need"),
        ("i32.const -1", "no end"),
        ("i32.const 0x7fffffff", "no end"),
        ("i32.const 0 i32.const 1 i32.const 0x00100000 memory.fill i32.const 0", "no end"),
    ],
)
def test_a_module_that_fails_has_not_decided(body: str, why: str) -> None:
    with pytest.raises(PolicyUndecidedError, match=why):
        engine(module(body)).evaluate({})


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("[]", "undefined"),
        ("", "not JSON"),
        ("{}", "no single result"),
        ('[{"result":true}]', "is not an object"),
        ('[{"other":true}]', "no single result"),
        ('[{"result":{}}]', "lacks allow"),
        (ALLOW.replace("]", "],", 1), "decision document"),
        (ALLOW[:-1] + "," + ALLOW[1:], "no single result"),
        (ALLOW.replace("true", "1"), "not a boolean"),
        (ALLOW.replace('"deny"', '"allow":false,"deny"'), "twice"),
        (ALLOW + ',"set":[{"result":1}]', "twice"),
    ],
)
def test_a_result_that_is_no_decision_has_not_decided(result: str, why: str) -> None:
    with pytest.raises(PolicyUndecidedError, match=why):
        engine(module(result=result)).evaluate({})


def test_fuel_is_bounded() -> None:
    endless = engine(module("(loop br 0) i32.const 0"), fuel=1_000_000)
    with pytest.raises(PolicyLimitError, match="out of fuel"):
        endless.evaluate({})


def test_memory_is_bounded() -> None:
    limit = 2 << 20
    with pytest.raises(PolicyLimitError, match="memory"):
        engine(module(), memory_limit=limit).evaluate({"a": "x" * (limit + 1)})
    # The module asks for more than it may have, and OPA's allocator aborts.
    starved = engine(
        module("i32.const 999 memory.grow drop i32.const 3072 call $abort i32.const 0"), memory_limit=limit
    )
    with pytest.raises(PolicyLimitError, match="out of memory"):
        starved.evaluate({})
    refused = engine(module("i32.const 4096 i32.const 4096 i32.const 999 memory.grow i32.const -1 i32.ne select"))
    assert refused.evaluate({}).allow


def test_a_real_pack_runs_into_its_limits(node_evidence: AppraisalInput) -> None:
    cpu = node_evidence.devices[0]
    claims = {f"c{number}": "x" * 50 for number in range(20_000)} | dict(cpu.claims)
    large = node_evidence.model_copy(update={"devices": (cpu.model_copy(update={"claims": claims}),)}).to_input()
    pack = default_bundle("appraisal")
    with pytest.raises(PolicyLimitError, match="out of fuel"):
        PolicyEngine(pack, fuel=12_000_000).evaluate(large)
    with pytest.raises(PolicyLimitError, match="memory"):
        PolicyEngine(pack, memory_limit=2 << 20).evaluate(large)
    assert PolicyEngine(pack).evaluate(large).allow


def test_an_engine_decides_again_after_a_trap() -> None:
    # Traps where the input is longer than ten bytes, after spoiling the memory where the result stands.
    spoiling = engine(
        module(
            "local.get 4 i32.const 10 i32.gt_u if i32.const 4096 i32.const 0 i32.const 99 memory.fill unreachable end "
            "i32.const 4096"
        )
    )
    for _ in range(3):
        assert spoiling.evaluate({}).allow
        with pytest.raises(PolicyUndecidedError):
            spoiling.evaluate({"a": "long enough"})


def test_deep_documents_are_refused_before_the_module_sees_them(release: PolicyEngine) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PolicyInputError, match="nests deeper"):
        release.evaluate({"a": deep})
