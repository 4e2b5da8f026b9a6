"""Check the documents: every relative link in a tracked Markdown file names a file and a heading that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_CODE = re.compile(r"`+[^`]*`+")
_LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*(?:\"[^\"]*\")?$")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def documents(root: Path) -> list[Path]:
    """The Markdown files that git tracks, or will once they are added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.md"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(path for name in listed.stdout.split("\0") if name and (path := root / name).is_file())


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a document that are not in a fenced code block."""
    fence: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if fence is None and found:
            fence = found[1]
        elif fence is not None:
            if found and found[1].startswith(fence):
                fence = None
        else:
            yield number, line


def anchors(text: str) -> set[str]:
    """The heading anchors of a document, as GitHub makes them: lower case, punctuation dropped, repeats numbered."""
    found: set[str] = set()
    for _, line in prose(text):
        heading = _HEADING.match(line)
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            name, repeat = slug, 0
            while name in found:
                repeat += 1
                name = f"{slug}-{repeat}"
            found.add(name)
    return found


def broken_links(document: Path, root: Path) -> list[str]:
    """One line for each relative link of a document that leads nowhere, or out of the repository."""
    problems: list[str] = []
    for number, line in prose(document.read_text()):
        bare = _CODE.sub("", line)
        targets = _LINK.findall(bare) + _REFERENCE.findall(bare)
        for target in targets:
            if _SCHEME.match(target):
                continue
            path, _, anchor = unquote(target).partition("#")
            named = (document.parent / path).resolve() if path else document
            where = f"{document.relative_to(root)}:{number}"
            if not named.is_relative_to(root):
                problems.append(f"{where}: {target} leads out of the repository")
            elif not named.exists():
                problems.append(f"{where}: {target} names no file")
            elif anchor and named.suffix == ".md" and anchor not in anchors(named.read_text()):
                problems.append(f"{where}: {target} names no heading of {named.relative_to(root)}")
    return problems


def main() -> int:
    """Print what is broken; returns the exit status."""
    pages = documents(ROOT)
    problems = [problem for page in pages for problem in broken_links(page, ROOT)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(pages)} documents, {len(problems)} broken links")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
