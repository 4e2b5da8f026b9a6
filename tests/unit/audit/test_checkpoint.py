"""Checkpoints: the specification's example, and everything that is none."""

from __future__ import annotations

import pytest

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import MalformedError, NoteSignatureError
from audit.note import NoteSigner, SignedNote, sign_note

# The note text of the example in C2SP tlog-checkpoint.
EXAMPLE = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def test_the_specification_s_example() -> None:
    checkpoint = Checkpoint.parse_text(EXAMPLE)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e")
    assert checkpoint.to_text() == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE[:-1],
        EXAMPLE + "extension\n",
        "\n" + EXAMPLE,
        EXAMPLE.replace("20852163", "020852163"),
        EXAMPLE.replace("20852163", "-1"),
        EXAMPLE.replace("20852163", "+1"),
        EXAMPLE.replace("20852163", "²"),
        EXAMPLE.replace("20852163", "9223372036854775808"),
        EXAMPLE.replace("q2I=", "q2I"),
        EXAMPLE.replace("q2I=", "q2J="),
        EXAMPLE.replace("CsUY", ""),
        EXAMPLE.replace("behind-the-sofa", "behind the sofa"),
        EXAMPLE.replace("example.com/behind-the-sofa", ""),
    ],
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(MalformedError):
        Checkpoint.parse_text(text)


def test_signed_and_opened() -> None:
    signer = NoteSigner.generate("log.example")
    checkpoint = Checkpoint("log.example", 3, bytes(32))
    assert open_checkpoint(checkpoint.sign(signer).to_bytes(), signer.verifier) == checkpoint


def test_only_the_log_s_own_key_signs() -> None:
    other = NoteSigner.generate("other.example")
    with pytest.raises(MalformedError, match="may not sign"):
        Checkpoint("log.example", 3, bytes(32)).sign(other)
    # A note of another origin, signed by a key that is trusted for its own.
    note = sign_note(Checkpoint("log.example", 3, bytes(32)).to_text(), [other])
    with pytest.raises(MalformedError, match="is not the key's name"):
        open_checkpoint(note.to_bytes(), other.verifier)


def test_altered_size_is_found() -> None:
    signer = NoteSigner.generate("log.example")
    note = Checkpoint("log.example", 3, bytes(32)).sign(signer).to_bytes().replace(b"\n3\n", b"\n4\n")
    with pytest.raises(NoteSignatureError, match="is bad"):
        open_checkpoint(note, signer.verifier)


def test_witness_signatures_do_no_harm() -> None:
    signer, witness = NoteSigner.generate("log.example"), NoteSigner.generate("witness.example")
    text = Checkpoint("log.example", 3, bytes(32)).to_text()
    note = sign_note(text, [signer, witness])
    assert open_checkpoint(note.to_bytes(), signer.verifier).size == 3
    with pytest.raises(NoteSignatureError, match="not signed by"):
        open_checkpoint(SignedNote(text, note.signatures[1:]).to_bytes(), signer.verifier)
