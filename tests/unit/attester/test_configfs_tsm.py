"""The kernel's side is a thread: pipes stand for the attributes that make the kernel act when they are touched."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attestation.snp.abi import AttestationReport
from attestation.snp.cert_table import ARK_GUID as ARK
from attestation.snp.cert_table import ASK_GUID as ASK
from attestation.snp.cert_table import VCEK_GUID as VCEK
from attestation.snp.cert_table import VLEK_GUID as VLEK
from attestation.snp.cert_table import cert_table_to_bytes
from attestation.types import Evidence
from attester.collect.configfs_tsm import ConfigfsTsm
from attester.errors import CollectionError, EvidenceConflictError, NoTeeError

REPORT_DATA = bytes(range(64))
TABLE = {VCEK: b"vcek", VLEK: b"vlek", ASK: b"ask", ARK: b"ark"}
LET_GO = b"let go"
MKDIR, RMDIR = os.mkdir, os.rmdir
REPORT_DATA_OFFSET, SIGNER_INFO_OFFSET = 0x50, 0x48


class Kernel:
    """What configfs-tsm does, for one provider."""

    def __init__(self, folder: Path, template: bytes) -> None:
        self.folder, self.template = folder, template
        self.provider = "sev_guest"
        self.generation = 7
        self.auxblob: bytes | None = cert_table_to_bytes(TABLE)
        self.foreign_writes = 0
        self.written: list[tuple[str, bytes]] = []
        self.report: Callable[[bytes], bytes] = self.sign
        self.threads: dict[str, threading.Thread] = {}
        self.taken: set[str] = set()
        self.privlevel_first = threading.Event()
        self.privlevel_first.set()

    def sign(self, inblob: bytes) -> bytes:
        start = REPORT_DATA_OFFSET
        return self.template[:start] + inblob + self.template[start + len(inblob) :]

    def mkdir(self, path: Path, mode: int) -> None:
        assert mode == 0o700
        if not self.folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        MKDIR(path, mode)
        (path / "provider").write_text(self.provider + "\n")
        (path / "generation").write_text(f"{self.generation}\n")
        for name in ("inblob", "outblob", "privlevel"):
            os.mkfifo(path / name)
        if self.auxblob is not None:
            (path / "auxblob").write_bytes(self.auxblob)
        for name in ("inblob", "privlevel"):
            self.threads[name] = threading.Thread(target=self.attribute, args=(path, name), daemon=True)
            self.threads[name].start()

    def attribute(self, path: Path, name: str) -> None:
        pipe = os.open(path / name, os.O_RDONLY)
        data = os.read(pipe, 1 << 16)
        os.close(pipe)
        if data == LET_GO:
            return
        self.taken.add(name)
        if name == "inblob":
            assert self.privlevel_first.wait(5)
        self.written.append((name, data))
        self.generation += 1
        if name == "privlevel":
            self.privlevel_first.set()
            return
        self.generation += self.foreign_writes
        (path / "generation").write_text(f"{self.generation}\n")
        (path / "outblob").write_bytes(self.report(data))

    def rmdir(self, path: Path) -> None:
        # Whoever still waits at a pipe is let go: readers that nobody wrote to, and a writer whom nobody reads.
        outblob = os.open(path / "outblob", os.O_RDONLY | os.O_NONBLOCK)
        for name, thread in self.threads.items():
            pipe = os.open(path / name, os.O_RDWR | os.O_NONBLOCK)
            if name not in self.taken:
                os.write(pipe, LET_GO)
            thread.join(5)
            assert not thread.is_alive()
            os.close(pipe)
        os.close(outblob)
        for entry in path.iterdir():
            entry.unlink()
        RMDIR(path)


@pytest.fixture
def template(vectors: Path) -> bytes:
    """A real attestation report of version 2 or later, found among the shared vectors by its length."""
    for path in sorted((vectors / "snp").rglob("*.bin")):
        data = path.read_bytes()
        if len(data) == 0x4A0:
            return AttestationReport.parse(data).to_bytes()
    pytest.skip("no SEV-SNP report among the shared vectors")


@pytest.fixture
def kernel(tmp_path: Path, template: bytes, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    folder = tmp_path / "report"
    folder.mkdir()
    made = Kernel(folder, template)
    monkeypatch.setattr("attester.collect.configfs_tsm.os.mkdir", made.mkdir)
    monkeypatch.setattr("attester.collect.configfs_tsm.os.rmdir", made.rmdir)
    monkeypatch.setattr("attester.collect.configfs_tsm._PAUSE", 0.001)
    return made


def test_report_with_the_hosts_certificates(kernel: Kernel) -> None:
    evidence = ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)
    assert evidence == Evidence(
        slot="cpu0", scheme="snp", data=kernel.sign(REPORT_DATA), certificates=(b"vcek", b"ask", b"ark")
    )
    assert kernel.written == [("inblob", REPORT_DATA)]
    assert list(kernel.folder.iterdir()) == []


def test_leaf_is_the_one_that_the_report_names(kernel: Kernel) -> None:
    template = bytearray(kernel.template)
    template[SIGNER_INFO_OFFSET] = (template[SIGNER_INFO_OFFSET] & ~0x1C) | (1 << 2)
    kernel.template = bytes(template)
    assert ConfigfsTsm(kernel.folder).cpu(REPORT_DATA).certificates == (b"vlek", b"ask", b"ark")


@pytest.mark.parametrize("auxblob", [None, b"", bytes(4096), cert_table_to_bytes({ASK: b"ask"})])
def test_host_without_a_leaf_conveys_nothing(kernel: Kernel, auxblob: bytes | None) -> None:
    kernel.auxblob = auxblob
    assert ConfigfsTsm(kernel.folder).cpu(REPORT_DATA).certificates == ()


def test_privilege_level_is_asked_for(kernel: Kernel) -> None:
    kernel.privlevel_first.clear()
    ConfigfsTsm(kernel.folder, privlevel=2).cpu(REPORT_DATA)
    assert kernel.written == [("privlevel", b"2"), ("inblob", REPORT_DATA)]
    with pytest.raises(ValueError, match="privlevel"):
        ConfigfsTsm(kernel.folder, privlevel=4)


def test_tdx_quote_is_passed_on(kernel: Kernel) -> None:
    kernel.provider, kernel.auxblob = "tdx_guest", None
    kernel.report = lambda inblob: b"quote over " + inblob
    evidence = ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)
    assert (evidence.scheme, evidence.data, evidence.certificates) == ("tdx", b"quote over " + REPORT_DATA, ())


@pytest.mark.parametrize("more", [1, -1, 5])
def test_writes_that_are_not_ours_are_noticed(kernel: Kernel, more: int) -> None:
    kernel.foreign_writes = more
    with pytest.raises(EvidenceConflictError):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)
    assert list(kernel.folder.iterdir()) == []


def test_report_over_other_data_is_noticed(kernel: Kernel) -> None:
    kernel.report = lambda inblob: kernel.sign(bytes(64))
    with pytest.raises(EvidenceConflictError, match="REPORT_DATA"):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)


@pytest.mark.parametrize("provider", ["", "arm_cca_guest", "sev_guest2"])
def test_provider_without_a_scheme_is_no_tee(kernel: Kernel, provider: str) -> None:
    kernel.provider = provider
    with pytest.raises(NoTeeError, match="provider"):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_is_never_padded_nor_cut(kernel: Kernel, size: int) -> None:
    with pytest.raises(CollectionError, match="64"):
        ConfigfsTsm(kernel.folder).cpu(bytes(size))
    assert kernel.written == []


def test_machine_without_a_tee(tmp_path: Path) -> None:
    with pytest.raises(NoTeeError, match="confidential VM"):
        ConfigfsTsm(tmp_path / "absent").cpu(REPORT_DATA)


@pytest.mark.parametrize("report", [b"", b"short", bytes(0x4A0)])
def test_bytes_that_are_no_report_are_refused(kernel: Kernel, report: bytes) -> None:
    kernel.report = lambda inblob: report
    with pytest.raises(CollectionError):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)


def test_malformed_certificate_table_is_refused(kernel: Kernel) -> None:
    kernel.auxblob = b"\x01" * 30
    with pytest.raises(CollectionError, match="certificate table"):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)


def test_busy_firmware_is_asked_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    import attester.collect.configfs_tsm as module

    read, failures = module._read, [errno.EBUSY, errno.EAGAIN]

    def busy(path: Path) -> bytes:
        if path.name == "outblob" and failures:
            raise OSError(failures.pop(), "busy", str(path))
        return read(path)

    monkeypatch.setattr(module, "_read", busy)
    assert ConfigfsTsm(kernel.folder).cpu(REPORT_DATA).data == kernel.sign(REPORT_DATA)


@pytest.mark.parametrize("number", [errno.EIO, errno.EBUSY])
def test_firmware_that_fails_is_an_error(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import attester.collect.configfs_tsm as module

    read = module._read

    def fail(path: Path) -> bytes:
        if path.name == "outblob":
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(module, "_read", fail)
    with pytest.raises(CollectionError, match="outblob"):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)


@pytest.mark.parametrize(
    ("number", "text"), [(errno.EACCES, "not permitted"), (errno.ENXIO, "no TEE provider"), (errno.ENOENT, "VM")]
)
def test_refused_entry_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("attester.collect.configfs_tsm.os.mkdir", refuse)
    with pytest.raises(NoTeeError, match=text):
        ConfigfsTsm(tmp_path).cpu(REPORT_DATA)


def test_blobs_are_bounded(kernel: Kernel) -> None:
    kernel.auxblob = bytes((1 << 20) + 1)
    with pytest.raises(CollectionError, match="more than"):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)


def test_generation_that_is_no_number_is_refused(kernel: Kernel) -> None:
    kernel.generation = "seven"  # type: ignore[assignment]  # what no kernel writes
    with pytest.raises(CollectionError, match="not a number"):
        ConfigfsTsm(kernel.folder).cpu(REPORT_DATA)
