"""`keystead asset import`: a draft on disk, files checked by digest, and options that must name what is there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.cli.descriptions.draft import Draft
from keystead.cli.main import run

Keystead = Callable[..., tuple[int, str, str]]

TRAIN, TEST = b"a,b\n1,2\n", b"a,b\n3,4\n"


@pytest.fixture
def keystead(capsys: pytest.CaptureFixture[str]) -> Keystead:
    def invoke(*arguments: object) -> tuple[int, str, str]:
        code = run(["asset", "import", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """A Croissant description of two files and two inputs, beside the files."""
    folder = tmp_path / "data"
    (folder / "part").mkdir(parents=True)
    (folder / "train.csv").write_bytes(TRAIN)
    (folder / "part" / "test.csv").write_bytes(TEST)

    def file(name: str, content: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        return {"@type": "cr:FileObject", "@id": name, "contentUrl": name, "sha256": digest} | more

    path = tmp_path / "croissant.json"
    document = {
        "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
        "@type": "Dataset",
        "dct:conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "Notes \u001b[31m".replace("\u001b", "\u202e"),  # a format character: shown, never obeyed
        "license": "CC-BY-4.0",
        "isBasedOn": ["raw=1", "elsewhere"],
        "distribution": [file("train.csv", TRAIN, contentSize=f"{len(TRAIN)} B"), file("part/test.csv", TEST)],
    }
    path.write_text(json.dumps(document))
    return path


def test_a_draft_and_what_to_do_next(keystead: Keystead, description: Path, tmp_path: Path) -> None:
    out = tmp_path / "draft.json"
    arguments = (description, "--asset", "acme/notes", "--out", out, "--files", tmp_path / "data")
    decided = ("--input", "raw=1=acme/raw@2", "--outside", "elsewhere")
    code, said, _ = keystead(*arguments, *decided)
    assert code == 0
    assert "2 files are as described; 0 have no digest" in said
    assert "\u202e" not in said
    assert "keystead asset register acme/notes --kind preprocessed" in said
    assert f"--draft {out}" in said
    draft = Draft.load(out)
    assert draft.description_digest == hashlib.sha256(description.read_bytes()).hexdigest()
    assert draft.parents() == ("acme/raw@2",)
    assert [(file.name, file.size) for file in draft.files] == [("part/test.csv", None), ("train.csv", len(TRAIN))]

    code, said, _ = keystead(*arguments, "--json")
    document = json.loads(said)
    assert (code, document["written"], document["undecided_inputs"]) == (0, str(out), ["raw=1", "elsewhere"])
    assert document["files"] == {"verified": 2, "without_digest": 0, "problems": [], "not_described": []}
    assert document["draft"]["kind"] == "dataset"
    code, said, _ = keystead(*arguments)
    assert (code, "undecided inputs" in said, "asset register" in said) == (0, True, False)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: (data / "train.csv").write_bytes(TEST), "train.csv: SHA-256"),
        (lambda data: (data / "train.csv").write_bytes(TRAIN + b"\n"), "train.csv: 9 bytes, described are 8"),
        (lambda data: (data / "part" / "test.csv").unlink(), "part/test.csv: No such file"),
        (lambda data: _link(data / "train.csv"), "train.csv: Too many levels of symbolic links"),
        (lambda data: _fifo(data / "train.csv"), "train.csv: is no regular file"),
    ],
)
def test_a_file_that_is_not_as_described(
    keystead: Keystead, description: Path, tmp_path: Path, change: Callable[[Path], object], problem: str
) -> None:
    change(tmp_path / "data")
    (tmp_path / "data" / "more.csv").write_bytes(b"")
    out = tmp_path / "draft.json"
    arguments = (description, "--asset", "acme/notes", "--out", out, "--files", tmp_path / "data")
    code, said, _ = keystead(*arguments, "--json")
    document = json.loads(said)
    assert (code, document["written"], document["files"]["verified"]) == (1, None, 1)
    assert [each.startswith(problem) for each in document["files"]["problems"]] == [True]
    assert "more.csv" in document["files"]["not_described"]
    code, said, _ = keystead(*arguments)
    assert (code, "No draft was written" in said, out.exists()) == (1, True, False)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--input", "raw"), "write NAME=TENANT/NAME@VERSION"),
        (("--input", "raw=2=acme/raw@1"), "no such input; it has 'raw=1', 'elsewhere'"),
        (("--outside", "nowhere"), "no such input"),
        (("--input", "raw=1=raw@1"), "'raw@1' is not TENANT/NAME@VERSION"),
        (("--input", "raw=1=acme/raw@1", "--outside", "raw=1"), "one of them"),
        (("--input", "raw=1=acme/raw@1", "--input", "raw=1=acme/raw@2"), "is there twice"),
        (("--input", "raw=1=acme/raw@1", "--kind", "dataset"), "raw data, derived from no asset"),
        (("--output", "lake/x"), "belongs to an OpenLineage event"),
        (("--files", "nowhere"), "no such folder"),
        (("--asset", "notes"), "asset: "),
    ],
)
def test_wrong_use_is_told(
    keystead: Keystead, description: Path, tmp_path: Path, options: tuple[str, ...], error: str
) -> None:
    out = tmp_path / "draft.json"
    code, _, said = keystead(description, "--asset", "acme/notes", "--out", out, *options)
    assert (code, error in said, out.exists()) == (2, True, False), said


def test_what_cannot_be_read_is_named(keystead: Keystead, tmp_path: Path) -> None:
    out = tmp_path / "draft.json"
    code, _, said = keystead(tmp_path / "none.json", "--asset", "acme/notes", "--out", out)
    assert (code, "none.json: No such file" in said) == (2, True)
    broken = tmp_path / "broken.json"
    broken.write_text('{"@context": {}, "@type": "sc:Dataset"}')
    code, _, said = keystead(broken, "--asset", "acme/notes", "--out", out)
    assert code == 2
    assert said.startswith("BAD_DESCRIPTION: ")
    assert "broken.json: conformsTo: is missing" in said
    code, said, _ = keystead(broken, "--asset", "acme/notes", "--out", out, "--json")
    assert json.loads(said)["error"]["code"] == "BAD_DESCRIPTION"
