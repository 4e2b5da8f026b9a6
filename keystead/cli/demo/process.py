"""The demo's broker: the product's own ``keystead serve`` in a process of its own, ended whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, NoReturn, Self

from keystead.cli.connection import Connection
from keystead.cli.profile import Profile

START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 5.0
_LOG_TAIL: Final = 2_000


class BrokerStartError(Exception):
    """The broker's process ended or did not answer in time; the text has the end of its log."""

    code = "BROKER_NOT_STARTED"


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class BrokerProcess:
    """A broker in a process of its own; use it as a context manager, which ends it in every case.

    Args:
        installation: what ``keystead init`` made.
        log: receives what the process prints.
        probe: a client profile, to see whether it answers.
    """

    __slots__ = ("_installation", "_log", "_probe", "_process")

    def __init__(self, installation: Path, *, log: Path, probe: Profile) -> None:
        self._installation = installation
        self._log = log
        self._probe = probe
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers over mutual TLS.

        Raises:
            BrokerStartError: it ended, or did not answer in time.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
                [sys.executable, "-m", "keystead.cli.main", "serve", str(self._installation), "--until-stdin-closes"],
                # Held open for as long as this process lives: even if it is killed, the broker ends.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C must reach the demo alone, which then ends the broker in good order.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        with Connection(self._probe, timeout=START_SECONDS) as connection:
            while not connection.ready(timeout=_PROBE_SECONDS):
                if self._process.poll() is not None:
                    raise BrokerStartError(f"the broker ended with code {self._process.returncode}: {self._tail()}")
                if time.monotonic() > deadline:
                    raise BrokerStartError(f"the broker did not answer within {START_SECONDS:g} s: {self._tail()}")
                time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End it in good order, or by force where it does not end in time; may be called again."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdin is not None:
                process.stdin.close()

    def _tail(self) -> str:
        return self._log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip() or "it said nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Stopped:
    """Turns SIGTERM and SIGHUP into an orderly end for as long as the block runs, so that nothing is left behind."""

    __slots__ = ("_previous",)

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + number)
