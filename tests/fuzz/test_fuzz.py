"""Every parser of untrusted bytes is fuzzed; a bounded run of each is part of the tests, and the fuzzer finds bugs."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_target import MAX_MESSAGE, Target, parts
from fuzz_targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGN = Path(__file__).parent / "fuzz_campaign.py"
SCALE = 1
"""Times each target's own number of runs: some twenty seconds of one core in all."""

ROOMS = ("keystead", "attestation", "policy", "audit", "sealed", "keybroker", "attester")
NOT_UNTRUSTED = {"simulator", "cli", "v1", "store", "collect"}
"""Folders whose readers are not given what strangers wrote: test vendors, the command line, generated code, the
broker's own tables, the node's own kernel and drivers. What the command line reads is read by the rooms, or has a
target of its own."""

PARSER = re.compile(
    r"(parse|read|load|decode|open|unwrap|verify|check|inspect|detect|judge|from|certificates_from|crl)(_|$)"
)
UNTRUSTED = re.compile(r"\b(bytes|str|object|Buffer|memoryview|Json)\b")

NO_TARGET = {
    "attestation.scheme:Scheme.verify": "a protocol; its implementations have targets",
    "attestation.nvgpu.verify:GpuRules.parse": "calls GpuEvidence.parse, which has a target",
    "attestation.nvswitch.verify:SwitchRules.parse": "calls SwitchEvidence.parse, which has a target",
    "attestation.nvidia.device:DeviceRules.parse": "a protocol",
    "attestation.nvidia.device:verify_device": "what nvgpu.verify and nvswitch.verify call",
    "attestation.nvidia.appraisal:check_collateral": "part of verify_device",
    "attestation.reference.devices:check_devices": "verified results, not bytes",
    "attestation.reference.devices:read_devices": "part of parse_reference_values",
    "attestation.reference.document:read_about": "part of parse_reference_values",
    "attestation.reference.document:read_document": "what parse_reference_values and parse_advisories call",
    "audit.database:open_read_only": "a database URL that the auditor types",
    "audit.keyring:KeyCustody.unwrap": "a protocol",
    "audit.payload:PayloadReader.open_checked": "reads rows; what is sealed in them is opened by unseal, which has one",
    "keybroker.keys.log_keys:LogKeyCustody.unwrap": "calls keys.wrap.unwrap, which has a target",
    "audit.verify:verify_log": "reads a database; what stands in it is read by parsers that have targets",
    "keybroker.assets:open_owner_key": "needs a broker; it calls HpkePrivateKey.open, which has a target",
    "audit.verify_tiles:verify_tiles": "walks published files, whose parsers have targets",
    "keybroker.reads:check_older": "calls Checkpoint.parse_text, which has a target",
    "keybroker.archive:check_size": "compares sizes",
    "keybroker.estate:check_node": "fields that a request's parser has read",
    "keybroker.last_appraisal:read_reasons": "what the broker itself wrote",
    "keybroker.archive:load": "reads the broker's own tables",
    "keybroker.judgement:judge": "calls verify_node and a policy engine",
    "keybroker.challenge:check": "compares a MAC over fixed offsets of 56 bytes",
    "keybroker.denial:from_findings": "findings, not bytes",
    "keybroker.keys.hierarchy:KeyHierarchy.unwrap_data_key": "calls keys.wrap.unwrap, which has a target",
    "keybroker.keys.root:FileRootKey.unwrap": "calls keys.wrap.unwrap, which has a target",
    "keybroker.keys.root:RootKey.unwrap": "a protocol",
    "keybroker.obligations:parse_obligations": "what the broker itself wrote into a lease",
    "keybroker.proof:check_hpke_key": "calls check_hpke_public_key, which has a target",
    "sealed.asset:SealedAsset.load_vouched": "reads a file for Manifest.parse_vouched, which has a target",
    "sealed.asset:SealedAsset.open": "opens a file for SealedReader, which has a target",
    "sealed.asset:SealedAsset.verify": "opens a file for SealedReader, which has a target",
    "sealed.format:check_key": "a data key's length",
    "attester.lease:Lease.open": "opens a file for SealedReader, which has a target",
}
"""Functions that look like parsers and have no target, each with the reason."""

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="NO FUZZING: atheris is not installed (Linux on x86-64, CPython 3.11 to 3.13)",
)


def parsers() -> Iterator[str]:
    """Every public function that is named as a parser and takes bytes or text: ``module:Class.function``."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if not NOT_UNTRUSTED & set(path.relative_to(ROOT).parts):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield from (f"{module}:{name}" for name in _functions(ast.parse(path.read_text("utf-8")), ""))


def _functions(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef) and PARSER.match(child.name):
            arguments = (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs)
            stated = [ast.unparse(each.annotation) for each in arguments if each.annotation is not None]
            if any(UNTRUSTED.search(annotation) for annotation in stated):
                yield prefix + child.name


def test_every_parser_has_a_target() -> None:
    """A new parser needs a target in `fuzz_targets`, or a reason here."""
    found = set(parsers())
    covered = {entry for target in TARGETS for entry in target.covers}
    assert sorted(found - covered - NO_TARGET.keys()) == [], "add a target for these to tests/fuzz/fuzz_targets.py"
    assert sorted(NO_TARGET.keys() - found) == [], "these exist no longer"
    assert sorted(NO_TARGET.keys() & covered) == []
    assert {target.name.split(".")[0] for target in TARGETS} >= {*ROOMS}


def test_what_targets_say_they_cover_exists() -> None:
    for target in TARGETS:
        for entry in target.covers:
            module, _, name = entry.partition(":")
            thing: object = importlib.import_module(module)
            for part in name.split("."):
                thing = getattr(thing, part)
            assert callable(thing), entry


def test_names_of_targets_are_unique() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_begins_with_an_input_that_it_accepts(target: Target) -> None:
    """A parser whose seeds are all refused at the door would hardly be fuzzed."""
    refused = []
    for data in target.seeds():
        assert len(data) <= target.max_len
        target(data)
        try:
            target.run(data)
        except target.errors as error:
            refused.append(str(error))
        else:
            return
    pytest.fail(f"refuses every seed: {refused}")


@pytest.mark.slow
@needs_atheris
def test_no_parser_breaks(tmp_path: Path) -> None:
    """A bounded run of every target from a fixed seed."""
    outcomes = tmp_path / "outcomes.json"
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--scale", str(SCALE), "--json", str(outcomes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = {each["name"]: each for each in json.loads(outcomes.read_text("utf-8"))["outcomes"]}
    assert results.keys() == {target.name for target in TARGETS}
    for target in TARGETS:
        outcome = results[target.name]
        assert outcome["executions"] >= target.runs * SCALE
        assert outcome["coverage"], f"{target.name} is not instrumented"


PLANTED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
import fuzz_campaign
from fuzz_target import Target

def crash(data):
    if data[:1] == b"K":
        raise KeyError("planted")

def hang(data):
    while data[:1] == b"K":
        time.sleep(0.01)

def bomb(data):
    if data[:1] == b"K":
        held = bytearray(b"x") * (400 << 20)
        time.sleep(5)

def wordy(data):
    if data[:1] == b"K":
        raise ValueErrorWithCode("x" * {limit} + "x")

def wrong(data):
    assert data[:1] != b"K"

class ValueErrorWithCode(ValueError):
    code = "PLANTED"

fuzz_campaign.TIMEOUT, fuzz_campaign.RSS_LIMIT = 1, 250
target = Target(name="planted", run=globals()[sys.argv[1]], seeds=lambda: (b"A", sys.argv[2].encode()),
                errors=(ValueErrorWithCode,), covers=())
print(fuzz_campaign.run(target, seconds=None, scale=1, workshop=Path({workshop!r}), keep=None))
"""


@needs_atheris
@pytest.mark.parametrize(
    ("bug", "said"),
    [
        ("crash", "KeyError: "),
        ("hang", "timeout after"),
        ("bomb", "out-of-memory"),
        ("wordy", f"says {MAX_MESSAGE + 1} characters"),
        ("wrong", "AssertionError"),
    ],
)
def test_a_planted_bug_is_found(tmp_path: Path, bug: str, said: str) -> None:
    script = PLANTED.format(folder=str(Path(__file__).parent), workshop=str(tmp_path), limit=MAX_MESSAGE)
    for seed, found in (("K", True), ("A", False)):
        if not found and bug != "crash":
            continue
        if not found:
            script = script.replace('b"K"', 'b"never"')
        done = subprocess.run(
            [sys.executable, "-c", script, bug, seed], capture_output=True, text=True, check=True, timeout=60
        )
        assert (said in done.stdout) is found, done.stdout + done.stderr
        artifact = re.search(r"crash='([^']*)'", done.stdout)
        assert artifact is not None
        assert bool(artifact[1]) is found
        if found:
            assert Path(artifact[1]).read_bytes().startswith(b"K")
        else:
            assert "executions=1500" in done.stdout


def test_parts_are_what_was_joined() -> None:
    from fuzz_seeds import joined

    assert parts(joined(b"a", b"", b"ccc")) == (b"a", b"", b"ccc")
    assert parts(b"") == ()
    assert parts(b"\xff\xffabc") == (b"abc",)
