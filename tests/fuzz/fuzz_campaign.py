"""Coverage-guided fuzzing of every target (`fuzz_targets`), each in a process of its own.

The parsers are imported once, instrumented by Atheris; each target then runs in a fork of that process, because
libFuzzer ends the process that it runs in. ``make fuzz`` runs each target for a time and keeps what it learnt below
``.cache/fuzz``; the tests run each a fixed number of times from a fixed seed and keep nothing.

Usage::

    python tests/fuzz/fuzz_campaign.py [--seconds N | --scale F] [--json FILE] [TARGET ...]
    python tests/fuzz/fuzz_campaign.py --replay FILE TARGET

Exit code 0: no crash. 1: a crash, a hang or too much memory; the table names the input and how to replay it. 2: wrong
use, or Atheris is not installed (it has wheels for Linux on x86-64 and CPython 3.11 to 3.13).
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "fuzz"
PACKAGES = [
    "keystead",
    "attestation",
    "policy",
    "audit",
    "sealed",
    "keybroker",
    "attester",
    "tomllib",
    "jwt",
]
"""What is instrumented: the product, and the parsers written in Python that it leaves structures to."""

TIMEOUT = 5
"""Seconds that one input may take; a thousand times what the slowest sound one does."""
RSS_LIMIT = 768
"""MiB that a target's process may hold; with everything imported it begins at some 200."""
SEED = 20261122
EXIT_CRASH = 77

if TYPE_CHECKING:
    from fuzz_target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one target went.

    Attributes:
        name: of the target.
        executions: how often it ran.
        coverage: edges seen.
        corpus: inputs worth keeping.
        cpu: seconds.
        peak: MiB.
        crash: path of the input that broke it; empty where none did.
        problem: the first line of what went wrong.
    """

    name: str
    executions: int
    coverage: int
    corpus: int
    cpu: float
    peak: int
    crash: str
    problem: str


def load_targets() -> dict[str, Target]:
    """Import every parser, instrumented, and name the targets."""
    import atheris

    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    with atheris.instrument_imports(include=PACKAGES):
        from fuzz_targets import TARGETS
    return {target.name: target for target in TARGETS}


def write_seeds(target: Target, folder: Path) -> None:
    """The target's own seeds, and the shared vectors where there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = list(target.seeds())
    vectors = Path(os.environ.get("KEYSTEAD_VECTORS", ROOT.parent / "shared" / "vectors"))
    for pattern in target.vectors:
        # A few of each kind: more teach nothing, and every one costs a run.
        inputs += [file.read_bytes() for file in sorted(vectors.glob(pattern))[:12]]
    for data in inputs:
        if len(data) <= target.max_len:
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def fuzz(target: Target, *, arguments: list[str], log: Path) -> tuple[int, float, int]:
    """Run libFuzzer on `target` in a fork: its exit code, CPU seconds and peak of memory in MiB."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        import atheris

        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        try:
            atheris.Setup([target.name, *arguments], target)
            atheris.Fuzz()
        except SystemExit:
            # libFuzzer writes the input that broke the target when the C library ends the process. Python's own end of
            # it would run what its parent has yet to do.
            ctypes.CDLL(None).exit(EXIT_CRASH)
        finally:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(EXIT_CRASH)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def run(target: Target, *, seconds: int | None, scale: float, workshop: Path, keep: Path | None) -> Outcome:
    """Fuzz one target, for `seconds` or for its own number of runs times `scale`."""
    seeds, crashes = workshop / "seeds" / target.name, (keep or workshop) / "crashes"
    corpus = (keep or workshop) / "corpus" / target.name
    for folder in (crashes, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    write_seeds(target, seeds)
    prefix = crashes / f"{target.name}-"
    arguments = [
        str(corpus),
        str(seeds),
        f"-max_len={target.max_len}",
        f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={RSS_LIMIT}",
        f"-artifact_prefix={prefix}",
        "-print_final_stats=1",
    ]
    if seconds is None:
        arguments += [f"-seed={SEED}", f"-runs={max(1, int(target.runs * scale))}"]
    else:
        arguments += [f"-max_total_time={seconds}"]
    log = workshop / f"{target.name}.log"
    code, cpu, peak = fuzz(target, arguments=arguments, log=log)
    said = log.read_text(encoding="utf-8", errors="replace")
    artifact = re.search(r"Test unit written to (\S+)", said)
    problem = "" if code == 0 else _problem(said) or f"exit code {code}"
    return Outcome(
        name=target.name,
        executions=_number(r"stat::number_of_executed_units:\s*(\d+)", said),
        coverage=max([int(edges) for edges in re.findall(r"\bcov: (\d+)", said)], default=0),
        corpus=sum(1 for _ in corpus.iterdir()),
        cpu=round(cpu, 2),
        peak=peak,
        crash=artifact[1] if artifact else "",
        problem=problem,
    )


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    return int(found[1]) if found else 0


def _problem(said: str) -> str:
    """What libFuzzer or Python says went wrong, in one line with its place."""
    exception = re.search(r"=== Uncaught Python exception: ===\n(.*?)(?:\n\n|\n==\d|\Z)", said, re.DOTALL)
    if exception:
        lines = exception[1].strip().splitlines()
        places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
        where = re.sub(rf'File "{re.escape(str(ROOT))}/', 'File "', places[-1]) if places else ""
        return f"{lines[0][:200]} {where}".strip()
    error = re.search(r"ERROR: libFuzzer: (.*)", said)
    return error[1] if error else ""


def main(argv: list[str]) -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(description="Fuzz every parser of untrusted bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a target, or a room; all where none is named")
    parser.add_argument("--seconds", type=int, help="run each target for so long, and keep its corpus")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies each target's own number of runs")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    parser.add_argument("--replay", type=Path, help="run one target once on this file, and show what it raises")
    options = parser.parse_args(argv)
    try:
        targets = load_targets()
    except ModuleNotFoundError as error:
        if error.name != "atheris":
            raise
        print("atheris is not installed: it has wheels for Linux on x86-64, CPython 3.11 to 3.13", file=sys.stderr)
        return 2
    chosen = [
        target
        for name, target in targets.items()
        if not options.targets or name in options.targets or name.split(".")[0] in options.targets
    ]
    if not chosen:
        print(f"no such target; there are {', '.join(targets)}", file=sys.stderr)
        return 2
    if options.replay is not None:
        chosen[0](options.replay.read_bytes())
        print(f"{chosen[0].name}: no crash")
        return 0
    keep = CACHE if options.seconds is not None else None
    outcomes = []
    started = time.monotonic()
    # Not a TemporaryDirectory, which the end of each fork would take away.
    workshop = Path(tempfile.mkdtemp())
    try:
        print(f"{'target':34} {'runs':>9} {'edges':>6} {'corpus':>6} {'CPU s':>7} {'MiB':>5}  result", flush=True)
        for target in chosen:
            outcome = run(target, seconds=options.seconds, scale=options.scale, workshop=workshop, keep=keep)
            outcomes.append(outcome)
            crash = outcome.crash
            if crash and keep is None:
                # The workshop is about to go, and the input must not go with it.
                kept = CACHE / "crashes" / Path(crash).name
                kept.parent.mkdir(parents=True, exist_ok=True)
                crash = str(shutil.copy(crash, kept))
                outcomes[-1] = outcome = Outcome(**{**asdict(outcome), "crash": crash})
            print(
                f"{outcome.name:34} {outcome.executions:9} {outcome.coverage:6} {outcome.corpus:6} {outcome.cpu:7.1f} "
                f"{outcome.peak:5}  {'ok' if not outcome.problem else outcome.problem}",
                flush=True,
            )
            if crash:
                program = Path(sys.executable).name
                print(f"    replay: {program} tests/fuzz/fuzz_campaign.py --replay {crash} {target.name}")
            elif outcome.problem:
                print((workshop / f"{target.name}.log").read_text(encoding="utf-8", errors="replace")[-2000:])
    finally:
        shutil.rmtree(workshop)
    failed = [outcome.name for outcome in outcomes if outcome.problem]
    own = resource.getrusage(resource.RUSAGE_SELF)
    cpu = own.ru_utime + own.ru_stime + sum(outcome.cpu for outcome in outcomes)
    print(
        f"{len(outcomes)} targets, {sum(outcome.executions for outcome in outcomes)} runs, {len(failed)} failed; "
        f"{cpu:.1f} s of CPU, {time.monotonic() - started:.1f} s"
    )
    if options.json is not None:
        options.json.write_text(
            json.dumps({"outcomes": [asdict(outcome) for outcome in outcomes], "cpu": cpu}, indent=1), encoding="utf-8"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
