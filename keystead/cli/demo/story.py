"""The story that ``keystead demo`` tells, chapter by chapter, through the product's public interfaces only.

The two things done behind the product's back are attacks (`keystead.cli.demo.attacks`): one byte of a sealed file and
one record of the log are altered on disk, to show that it is noticed.
"""

from __future__ import annotations

import time
from pathlib import Path

from audit.note import NoteVerifier
from keybroker.keys.signing import SigningKey
from keystead.cli import instants
from keystead.cli.connection import Connection
from keystead.cli.demo import chapter_audit, chapter_estate, chapter_model, chapter_refusals, chapter_sovereignty
from keystead.cli.demo.factory import Factory
from keystead.cli.demo.narrator import Narrator
from keystead.cli.demo.process import BrokerProcess
from keystead.cli.demo.stage import TENANT, TIMEOUT, Stage, node_client
from keystead.cli.profile import Profile
from keystead.v1 import audit_service_pb2


class Story:
    """One telling of the story.

    Args:
        narrator: who tells it.
        folder: where everything goes; it is there and empty.
    """

    def __init__(self, narrator: Narrator, folder: Path) -> None:
        self._narrator = narrator
        self._folder = folder
        self._started = time.monotonic()
        self._authorities = {name: SigningKey.generate() for name in ("facility", "legal")}

    def tell(self) -> None:
        """Tell it all. What goes otherwise than told is in the narrator's outcomes.

        Raises:
            Exception: the story cannot go on: whatever the product raised.
        """
        tell = self._narrator
        tell.title(
            "Keystead demo",
            "Owners of data, a scheduler, five nodes and an auditor share one broker, which trusts none of them. "
            "You see the product itself at work: its broker process, its protocol, its policies, its log.",
            "Simulated: the CPUs and GPUs. Their evidence is signed bit for bit like the real thing, under private "
            "roots which this broker trusts because its configuration says so, and says so loudly.",
        )
        tell.chapter(1, "A factory comes to life")
        tell.says("setup", "makes simulated vendor roots (RSA-4096, a few seconds) and five machines")
        factory = Factory.build(now=instants.now())
        installation = chapter_estate.install(self._folder, factory, self._authorities)
        profiles = {name: Profile.load(path) for name, path in installation.profiles.items()}
        verifier = NoteVerifier.parse(installation.log_verifier_key.read_text(encoding="ascii").strip())
        broker = BrokerProcess(installation.directory, log=self._folder / "broker.log", probe=profiles["operator"])
        with broker:
            broker.start()
            tell.says(
                "broker",
                f"runs as process {broker.pid} on {profiles['operator'].address}: mutual TLS, SQLite, Rego in Wasm",
            )
            with (
                Connection(profiles["operator"], timeout=TIMEOUT) as operator,
                Connection(profiles[f"{TENANT}-owner"], timeout=TIMEOUT) as owner,
                Connection(profiles[f"{TENANT}-scheduler"], timeout=TIMEOUT) as scheduler,
                Connection(profiles["auditor"], timeout=TIMEOUT) as auditor,
                node_client(profiles["node"]) as client,
            ):
                stage = Stage(
                    narrator=tell,
                    folder=self._folder,
                    factory=factory,
                    operator=operator,
                    owner=owner,
                    scheduler=scheduler,
                    auditor=auditor,
                    client=client,
                )
                chapter_estate.enrol(stage, self._authorities)
                model = chapter_model.seal(stage)
                recorder = chapter_model.use(stage, model)
                known = auditor.call(
                    auditor.audit.GetCheckpoint, audit_service_pb2.GetCheckpointRequest()
                ).checkpoint.encode("utf-8")
                chapter_refusals.refuse(stage, model, recorder)
                chapter_sovereignty.meet(stage)
                granted = chapter_audit.ask(stage, verifier, known)
        chapter_audit.alter_the_log(tell, installation.directory, verifier, known=known, index=granted)
        tell.says("broker", f"has ended; nothing is left running. {time.monotonic() - self._started:.0f} s in all")
