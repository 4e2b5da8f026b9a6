"""The workshop's own checks find what they look for."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "scripts"


def load(name):
    spec = importlib.util.spec_from_file_location(f"workshop_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def check_docs():
    return load("check_docs")


@pytest.fixture
def page(tmp_path):
    (tmp_path / "other.md").write_text("# Title\n\n## A `code` name, twice\n\n## A code name, twice\n")
    return tmp_path / "page.md"


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md) and [b](other.md#title)",
        "[a](other.md#a-code-name-twice) [b](other.md#a-code-name-twice-1)",
        "# Here\n[up](#here)",
        "[elsewhere](https://example.org/missing.md)",
        "`[not a link](missing.md)`",
        "```\n[not a link](missing.md)\n```",
        "~~~~\n~~~\n[not a link](missing.md)\n~~~~",
    ],
)
def test_links_that_resolve(check_docs, page, text):
    page.write_text(text)
    assert check_docs.broken_links(page, page.parent) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](missing.md)", "page.md:1: missing.md names no file"),
        ("fine\n[a]: missing.md", "page.md:2: missing.md names no file"),
        ("![a](missing.png)", "page.md:1: missing.png names no file"),
        ("[a](other.md#nowhere)", "page.md:1: other.md#nowhere names no heading of other.md"),
        ("[a](other.md#a-code-name-twice-2)", "page.md:1: other.md#a-code-name-twice-2 names no heading of other.md"),
        ("```\n# Here\n```\n[up](#here)", "page.md:4: #here names no heading of page.md"),
        ("[a](../outside.md)", "page.md:1: ../outside.md leads out of the repository"),
    ],
)
def test_links_that_do_not(check_docs, page, text, problem):
    page.write_text(text)
    assert check_docs.broken_links(page, page.parent) == [problem]


def test_generated_code_that_differs_is_named(tmp_path):
    generate_protos = load("generate_protos")
    committed, generated = tmp_path / "committed", tmp_path / "generated"
    for folder, files in (
        (committed, {"__init__.py": "", "same.py": "x = 1\n", "changed.py": "x = 1\n", "left_over.py": ""}),
        (generated, {"same.py": "x = 1\n", "changed.py": "x = 2\n", "new.py": "x = 3\n"}),
    ):
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    named = [line for line in generate_protos.differences(committed, generated) if line.startswith(str(committed))]
    assert named == [
        f"{committed / 'left_over.py'}: not generated from any proto; remove it",
        f"{committed / 'changed.py'}: not what the protos generate; run `make protos`",
        f"{committed / 'new.py'}: not what the protos generate; run `make protos`",
    ]


class Tool:
    """A program that the set-up finds or builds: how it says its version, and programs that claim one."""

    def __init__(self, name, says, folder):
        self.name, self.says, self.folder = name, says, folder

    def fake(self, version):
        folder = self.folder / version
        folder.mkdir()
        program = folder / self.name
        program.write_text(f"#!/bin/sh\necho '{self.says.format(version)}'\n")
        program.chmod(0o755)
        return program

    def set_up(self, *, path, named=None):
        environment = {"PATH": path} | ({f"KEYSTEAD_{self.name.upper()}": str(named)} if named else {})
        return subprocess.run(
            ["/bin/sh", SCRIPTS / f"setup_{self.name}.sh", "1.2.3"],
            cwd=self.folder,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )


@pytest.fixture(params=[("opa", "Version: {}"), ("versitygw", "Version  : v{}")], ids=["opa", "versitygw"])
def tool(request, tmp_path):
    return Tool(*request.param, tmp_path)


def test_a_matching_tool_is_enough(tool):
    program = tool.fake("1.2.3")
    for done in (
        tool.set_up(path=f"{program.parent}:/usr/bin:/bin"),
        tool.set_up(path="/usr/bin:/bin", named=program),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_named_tool_of_another_version_is_an_error(tool):
    done = tool.set_up(path="/usr/bin:/bin", named=tool.fake("9.9.9"))
    assert done.returncode == 2
    assert f"which is not {tool.name} 1.2.3" in done.stderr


def test_without_tool_and_go_one_line_says_so_and_the_set_up_goes_on(tool):
    folder = tool.fake("9.9.9").parent
    for name in ("sed", "grep"):
        (folder / name).symlink_to(shutil.which(name))
    done = tool.set_up(path=str(folder))
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"no {tool.name} 1.2.3")
