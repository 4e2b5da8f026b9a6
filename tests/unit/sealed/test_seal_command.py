"""``keystead seal`` and ``keystead open`` as a user runs them."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keystead.cli.main import run
from sealed.format import FIRST_PLAINTEXT


class Bench:
    """A folder with a model, keys, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.model, self.out = folder / "model", folder / "out"
        (self.model / "shards").mkdir(parents=True)
        (self.model / "config.json").write_text("{}")
        (self.model / "shards" / "0.bin").write_bytes(bytes(range(256)) * 6000)
        owner = Ed25519PrivateKey.generate()
        self.signing_key, self.owner_key, self.key = folder / "owner.pem", folder / "owner.pub", folder / "data.key"
        self.signing_key.write_bytes(owner.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.owner_key.write_bytes(owner.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def run(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        self.capsys.readouterr()
        assert run([str(word) for word in arguments]) == code, self.capsys.readouterr()
        output = self.capsys.readouterr()
        return output.out, output.err

    def json(self, *arguments: object, code: int = 0) -> Any:
        out, err = self.run(*arguments, "--json", code=code)
        assert err == ""
        return json.loads(out)

    def seal(self, *more: object, code: int = 0) -> Any:
        options = ("--asset", "acme/llama", "--version", 1, "--key-file", self.key, "--signing-key", self.signing_key)
        return self.json("seal", self.model, *options, "--out", self.out, *more, code=code)


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_seal_then_open(bench: Bench) -> None:
    done = bench.seal("--new-key")
    assert stat.S_IMODE(bench.key.stat().st_mode) == 0o600
    assert [file["name"] for file in done["files"]] == ["config.json", "shards/0.bin"]
    plain = bench.folder / "plain"
    for proof in (("--owner-key", bench.owner_key), ("--digest", done["manifest_digest"])):
        opened = bench.json("open", bench.out, "--key-file", bench.key, *proof, "--out", plain)
        assert opened["authentic"] is True
        assert opened["manifest"] == {"--owner-key": "signed", "--digest": "vouched"}[str(proof[0])]
        for file in done["files"]:
            assert (plain / file["name"]).read_bytes() == (bench.model / file["name"]).read_bytes()
            assert stat.S_IMODE((plain / file["name"]).stat().st_mode) == 0o600


def test_people_read_a_table_and_a_pipe_gets_no_bar(bench: Bench) -> None:
    bench.key.write_bytes(bytes(32))
    options = ("--asset", "acme/llama", "--version", 1, "--key-file", bench.key, "--signing-key", bench.signing_key)
    out, err = bench.run("seal", bench.model, *options, "--out", bench.out)
    assert "shards/0.bin" in out
    assert "1536072" in out
    assert err == ""
    out, err = bench.run("open", bench.out, "--key-file", bench.key)
    assert "2 files of acme/llama@1 are authentic" in out
    assert "manifest not checked" in err


def test_verify_writes_nothing(bench: Bench) -> None:
    bench.seal("--new-key")
    before = sorted(bench.folder.rglob("*"))
    for more in ((), ("--verify",)):
        assert bench.json("open", bench.out, "--key-file", bench.key, *more)["written_to"] is None
    assert sorted(bench.folder.rglob("*")) == before


def test_no_is_1(bench: Bench) -> None:
    digest = bench.seal("--new-key")["manifest_digest"]
    shard = bench.out / "shards" / "0.bin.sealed"
    good = shard.read_bytes()
    plain = bench.folder / "plain"
    for bad in (good[:-1], good + b"\0", good[:FIRST_PLAINTEXT], b"", good[:100] + b"\0" + good[101:]):
        shard.write_bytes(bad)
        for more in (("--verify",), ("--out", plain)):
            error = bench.json("open", bench.out, "--key-file", bench.key, *more, code=1)["error"]
            assert error["code"] == "SEALED_NOT_AUTHENTIC"
            assert "0.bin" in error["message"]
            assert not (plain / "shards" / "0.bin").exists()
    shard.unlink()
    bench.json("open", bench.out, "--key-file", bench.key, code=1)
    shard.write_bytes(good)
    other = bench.folder / "other.key"
    other.write_bytes(bytes(32))
    assert bench.json("open", bench.out, "--key-file", other, code=1)["error"]["code"] == "SEALED_NOT_AUTHENTIC"
    foreign = bench.folder / "foreign.pub"
    foreign.write_bytes(
        Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for more in (("--owner-key", foreign), ("--digest", "0" * 64)):
        error = bench.json("open", bench.out, "--key-file", bench.key, *more, code=1)["error"]
        assert error["code"] == "SEALED_MANIFEST_NOT_AUTHENTIC"
    bench.json("open", bench.out, "--key-file", bench.key, "--digest", digest)


def test_wrong_use_is_2(bench: Bench) -> None:
    assert bench.seal(code=2)["error"]["code"] == "INPUT_OUTPUT"  # no key there, and --new-key not given
    bench.key.write_bytes(bytes(31))
    assert bench.seal(code=2)["error"]["code"] == "BAD_KEY_MATERIAL"
    bench.key.write_bytes(bytes(32))
    assert bench.seal("--new-key", code=2)["error"]["code"] == "INPUT_OUTPUT"
    assert bench.key.read_bytes() == bytes(32)
    bench.seal()
    assert bench.seal(code=2)["error"]["code"] == "CANNOT_SEAL"
    common = ("open", bench.out, "--key-file", bench.key)
    for more in (
        ("--verify", "--out", bench.folder / "plain"),
        ("--owner-key", bench.owner_key, "--digest", "0" * 64),
        ("--digest", "xyz"),
        ("--owner-key", bench.signing_key),
    ):
        bench.json(*common, *more, code=2)
    bench.json("open", bench.folder / "absent", "--key-file", bench.key, code=2)
    bench.run(*common, "--threads", "0", code=2)
    bench.run("open", code=2)


def test_signing_key_of_another_kind_is_refused(bench: Bench) -> None:
    bench.key.write_bytes(bytes(32))
    for content in (
        b"",
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ):
        bench.signing_key.write_bytes(content)
        assert bench.seal(code=2)["error"]["code"] == "BAD_KEY_MATERIAL"
    assert not bench.out.exists()


def test_keys_that_openssl_makes_are_read(bench: Bench) -> None:
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", bench.signing_key],
        ["openssl", "pkey", "-in", bench.signing_key, "-pubout", "-out", bench.owner_key],
        ["openssl", "rand", "-out", bench.key, "32"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    bench.seal()
    bench.json("open", bench.out, "--key-file", bench.key, "--owner-key", bench.owner_key)
