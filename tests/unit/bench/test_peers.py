"""Peers are run in an environment of their own; one that cannot be had is said to be missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import peers

ECHO = "import json, sys\njson.dump({'given': [len(json.load(sys.stdin)['text'])]}, sys.stdout)\n"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of peers with one environment that is complete: this very interpreter."""
    monkeypatch.setattr(peers, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    home = tmp_path / "cache" / "peer-1.0"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(sys.executable)
    (home / "complete").touch()
    return tmp_path


def test_a_peer_is_given_the_case_and_gives_its_timings(peer: Path) -> None:
    (peer / "echo.py").write_text(ECHO, encoding="utf-8")
    assert peers.run("echo", "peer==1.0", json.loads('{"text": "abc"}')) == {"given": [3]}


def test_a_peer_that_refuses_is_not_measured(peer: Path) -> None:
    (peer / "refuse.py").write_text("raise SystemExit('the peer refuses: signature')\n", encoding="utf-8")
    with pytest.raises(peers.PeerMissingError, match="the peer refuses: signature"):
        peers.run("refuse", "peer==1.0", {})


def test_a_peer_that_cannot_be_installed_is_missing(peer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.sys, "executable", str(peer / "no-interpreter"))
    with pytest.raises(peers.PeerMissingError, match="no-interpreter"):
        peers.run("echo", "peer==2.0", {})
    assert not (peer / "cache" / "peer-2.0" / "complete").exists()
