"""Help texts: a summary, then examples that can be copied."""

from __future__ import annotations


def with_examples(summary: str, *examples: str) -> str:
    """`summary` followed by `examples`, one on a line; they are command lines without the leading ``keystead``."""
    # \b keeps the lines of a paragraph as they are.
    return "\n".join((summary, "", "\b", "Examples:", *(f"  keystead {example}" for example in examples)))
