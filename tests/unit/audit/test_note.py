"""Signed notes against the published examples of Go's sumdb/note and of the C2SP specification."""

from __future__ import annotations

import pytest

from audit.errors import MalformedError, NoteSignatureError
from audit.note import MAX_NOTE_SIZE, NoteSigner, NoteVerifier, SignedNote, sign_note

# The example in the documentation of golang.org/x/mod/sumdb/note.
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    GO_TEXT + "\n\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP signed-note, section "Verifier keys".
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def test_go_example_is_reproduced_byte_for_byte() -> None:
    signer = NoteSigner.parse(GO_SKEY)
    assert str(signer.verifier) == GO_VKEY
    assert signer.skey() == GO_SKEY
    assert str(sign_note(GO_TEXT, [signer])) == GO_NOTE


@pytest.mark.parametrize(("vkey", "note"), [(GO_VKEY, GO_NOTE), (C2SP_VKEY, C2SP_NOTE)])
def test_published_notes_verify(vkey: str, note: str) -> None:
    signed = SignedNote.parse(note.encode())
    signed.verify(NoteVerifier.parse(vkey))
    assert signed.to_bytes() == note.encode()


def test_note_text_may_hold_empty_lines() -> None:
    signer = NoteSigner.generate("poet.example")
    note = sign_note("Ognuno sta solo\n\ned è subito sera.\n", [signer])
    parsed = SignedNote.parse(note.to_bytes())
    assert parsed == note
    parsed.verify(signer.verifier)


def test_unknown_signatures_are_ignored_and_a_bad_known_one_rejects_the_note() -> None:
    log, witness = NoteSigner.generate("log.example"), NoteSigner.generate("witness.example")
    note = sign_note("text\n", [witness, log])
    note.verify(log.verifier)
    note.verify(witness.verifier)
    with pytest.raises(NoteSignatureError, match="not signed by"):
        note.verify(NoteSigner.generate("log.example").verifier)
    altered = SignedNote("other\n", note.signatures)
    with pytest.raises(NoteSignatureError, match="is bad"):
        altered.verify(log.verifier)
    # A good and a bad line of one key: the bad one decides.
    with pytest.raises(NoteSignatureError, match="is bad"):
        SignedNote("text\n", (*note.signatures, altered_line(note))).verify(log.verifier)


def altered_line(note: SignedNote):
    line = note.signatures[-1]
    return type(line)(line.name, line.key_id, bytes(64))


def test_same_name_and_another_key_id_is_another_key() -> None:
    first, second = NoteSigner.generate("log.example"), NoteSigner.generate("log.example")
    note = sign_note("text\n", [first])
    with pytest.raises(NoteSignatureError, match="not signed by"):
        note.verify(second.verifier)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n-- name AAAAAAA=\n",
        GO_NOTE.encode()[:-1],
        GO_NOTE.encode() + b"more\n",
        GO_NOTE.encode().replace(b"x08g", b"x08\x01"),
        GO_NOTE.encode().replace(b"If", b"\tIf"),
        GO_NOTE.encode().replace(b"nAM=", b"nAM"),
        GO_NOTE.encode().replace(b"nAM=", b"nAN="),  # stray bits: not canonical base64
        GO_NOTE.encode().replace(b"PeterNeumann x08", b"Peter+Neumann x08"),
        GO_NOTE.encode().replace(b"PeterNeumann x08", b" x08"),
        b"text\n\n\xe2\x80\x94 name AAAAAA==\n",  # a key id and nothing behind it
        b"\xff\n\n" + GO_NOTE.encode().split(b"\n\n")[1],
        b"x" * (MAX_NOTE_SIZE + 1),
        b"t\n\n" + b"\xe2\x80\x94 n AAAAAAA=\n" * 101,
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        SignedNote.parse(data)


def test_sixteen_signatures_are_accepted() -> None:
    signers = [NoteSigner.generate(f"witness-{number}.example") for number in range(16)]
    note = SignedNote.parse(sign_note("text\n", signers).to_bytes())
    for signer in signers:
        note.verify(signer.verifier)


@pytest.mark.parametrize("text", ["", "\n", "no newline", "tab\there\n", "lone \ud800 surrogate\n"])
def test_text_that_cannot_stand_in_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(MalformedError):
        sign_note(text, [NoteSigner.generate("log.example")])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        GO_VKEY.replace("PeterNeumann", "Peter Neumann"),
        GO_VKEY.replace("PeterNeumann", "SomeoneElse"),
        GO_VKEY.replace("+ARpc", "+AhpC"),
        GO_VKEY[:-4],
        GO_VKEY + "\n",
        "+" + GO_VKEY,
    ],
)
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(MalformedError):
        NoteVerifier.parse(vkey)


@pytest.mark.parametrize("skey", [GO_VKEY, GO_SKEY[:-4], GO_SKEY.replace("c74f20a3", "00000000"), GO_SKEY + "!"])
def test_what_is_no_signer_key_is_refused_and_never_repeated(skey: str) -> None:
    with pytest.raises(MalformedError) as caught:
        NoteSigner.parse(skey)
    assert "AYEKFALV" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "\ud800"])
def test_names_that_no_key_may_have(name: str) -> None:
    with pytest.raises(MalformedError):
        NoteSigner.generate(name)
