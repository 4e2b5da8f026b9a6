"""What docs/sovereignty.md tells a data-protection officer to type, typed, and answered as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "sovereignty.md"
SECONDS = 240


@pytest.mark.slow
def test_every_question_is_answered(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    programs = tmp_path / "bin"
    programs.mkdir()
    keystead = programs / "keystead"
    keystead.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m keystead.cli.main "$@"\n')
    keystead.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}
    script = tmp_path / "page.sh"
    lines = "\n".join(f"echo BLOCK {number}\n{block}" for number, block in enumerate(blocks))
    # Whatever fails, the broker ends with the script.
    script.write_text(
        "set -eu\ntrap 'jobs -p | xargs -r kill 2> /dev/null || true' EXIT\n"
        + lines.replace("kill %1", "kill $!; wait $!")
    )
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        env=kept | {"PATH": f"{programs}:{kept['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    demo, demands, lineage, where, abroad, refused, site, verified = re.split(
        r"^BLOCK \d\n", done.stdout, flags=re.MULTILINE
    )[1:]
    assert "steps went as told." in demo
    assert "CH or US and EEA or GDPRADEQUACY" in demands
    assert "legal, privacy" in demands
    assert "used acme/patients-eu@1" in lineage
    assert "used acme/trials-us@1" in lineage
    assert "zrh1" in where
    assert "iad1" not in where
    assert abroad.count("no record fits") == 2
    assert refused.count("JURISDICTION_NOT_PERMITTED") == 3
    assert "signed by facility, legal" in site
    assert "PAYLOAD_ALTERED" in verified
    assert "exit code 1" in verified
