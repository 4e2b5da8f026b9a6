"""The demo, chapter 4: whoever should not have the model is refused, and told every reason."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Final

from attestation.simulator.snp import SnpDefect
from attester.collect.collector import Collector
from keystead.cli.demo.attacks import flip_bit
from keystead.cli.demo.chapter_model import SealedModel
from keystead.cli.demo.factory import ABROAD, DEBUGGED, GOOD, STALE, Recorder, Replayer
from keystead.cli.demo.model import FILE_NAME
from keystead.cli.demo.safetensors import read
from keystead.cli.demo.stage import MODEL, REFUSED, Job, Stage, attempt
from keystead.cli.exits import describe
from sealed.asset import sealed_path
from sealed.errors import NotAuthenticError

_SHORT_GRANT: Final = 2
"""Seconds of the grant that is to expire."""


def refuse(stage: Stage, model: SealedModel, recorder: Recorder) -> None:
    """Everyone who should not have the model tries to get it.

    Args:
        stage: who is there.
        model: what they want.
        recorder: who recorded a sound node's evidence.
    """
    stage.narrator.chapter(4, "Everyone else is refused, and told every reason")
    job = stage.authorize("slurm:4712")
    machines = stage.factory.machines

    def attest(machine: Collector, node_id: str, *, using: Job | None = None) -> Callable[[], object]:
        return lambda: stage.acquire(machine, using or job, node_id)

    abroad = machines[ABROAD]
    attempt(
        stage.narrator,
        "wrong-jurisdiction",
        actor=ABROAD,
        what="is sound, but stands in the US; its site follows from its enrolled CPU, whatever it says",
        action=attest(abroad, ABROAD),
        codes={"JURISDICTION_NOT_PERMITTED"},
    )
    attempt(
        stage.narrator,
        "debug-enabled-guest",
        actor=DEBUGGED,
        what="starts its guest with debugging on: the host could read the key out of its memory",
        action=attest(machines[DEBUGGED].broken(SnpDefect.DEBUG), DEBUGGED),
        codes={"SNP_DEBUG_ALLOWED"},
    )
    attempt(
        stage.narrator,
        "stale-firmware",
        actor=STALE,
        what="runs CPU firmware with known holes",
        action=attest(machines[STALE].broken(SnpDefect.STALE_TCB), STALE),
        codes={"SNP_TCB_BELOW_MINIMUM"},
    )
    attempt(
        stage.narrator,
        "foreign-gpu",
        actor=DEBUGGED,
        what=f"presents the GPU of {STALE}: genuine, fresh and vouched for, but enrolled elsewhere",
        action=attest(machines[DEBUGGED].carrying(*machines[STALE].gpus), DEBUGGED),
        codes={"DEVICE_OF_ANOTHER_NODE"},
    )
    if recorder.recorded_cpu is not None:
        attempt(
            stage.narrator,
            "replayed-evidence",
            actor="a thief",
            what=f"recorded the evidence of {GOOD} and presents it with keys of their own",
            action=attest(Replayer(recorder.recorded_cpu, recorder.recorded_devices), GOOD),
            codes={"SNP_REPORT_DATA", "NVGPU_NONCE"},
        )
    attempt(
        stage.narrator,
        "purpose-not-permitted",
        actor="scheduler",
        what="asks to train on the model; its owner permits inference",
        action=lambda: stage.authorize("slurm:4713", purpose="pretraining"),
        codes={"PURPOSE_NOT_PERMITTED"},
    )
    short = stage.authorize("slurm:4714", seconds=_SHORT_GRANT)
    time.sleep(max(0.0, short.expires + 1 - time.time()))
    attempt(
        stage.narrator,
        "expired-grant",
        actor=GOOD,
        what=f"waited in the queue past the end of a grant of {_SHORT_GRANT} seconds",
        action=attest(machines[GOOD], GOOD, using=short),
        codes={"GRANT_EXPIRED"},
    )
    _tampered_file(stage, model, job)


def _tampered_file(stage: Stage, model: SealedModel, job: Job) -> None:
    tell = stage.narrator
    tell.says("a thief", "has write access to the storage and flips one bit in the middle of the sealed model")
    copy = stage.folder / "sealed-tampered"
    shutil.copytree(model.folder, copy)
    flip_bit(sealed_path(copy, FILE_NAME))
    with stage.acquire(stage.factory.machines[GOOD], job, GOOD) as lease:
        actual, text = "opened", "it was opened all the same"
        try:
            with lease.open(MODEL, copy) as reader, reader.file() as file:
                read(file)
        except NotAuthenticError as error:
            code, line = describe(error)
            actual, text = REFUSED, f"{GOOD} opens nothing of that segment: {code}: {line}"
    tell.outcome("tampered-file", expected=REFUSED, actual=actual, text=text)
