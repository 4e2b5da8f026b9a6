"""The Tink library reads what this package writes and the other way round: the wire format is Tink's own."""

from __future__ import annotations

import io

import pytest
import tink
from tink import cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from sealed.errors import NotAuthenticError
from sealed.format import FIRST_PLAINTEXT, SEGMENT_PLAINTEXT
from sealed.open import SealedReader
from sealed.seal import seal_stream

KEY = bytes(range(100, 132))
CONTEXT = b"associated data"
PLAIN = bytes(i * 7 % 253 for i in range(FIRST_PLAINTEXT + SEGMENT_PLAINTEXT + 1))
SIZES = [0, 1, 1000, FIRST_PLAINTEXT - 1, FIRST_PLAINTEXT, FIRST_PLAINTEXT + 1, len(PLAIN) - 1, len(PLAIN)]


class Kept(io.BytesIO):
    """Tink closes what it writes to; keep the bytes."""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


@pytest.fixture(scope="module")
def primitive() -> streaming_aead.StreamingAead:
    streaming_aead.register()
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        key_value=KEY,
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=1 << 20, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
        ),
    )
    keyset = tink_pb2.Keyset(
        primary_key_id=1,
        key=[
            tink_pb2.Keyset.Key(
                key_data=tink_pb2.KeyData(
                    type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    value=key.SerializeToString(),
                    key_material_type=tink_pb2.KeyData.SYMMETRIC,
                ),
                status=tink_pb2.ENABLED,
                key_id=1,
                output_prefix_type=tink_pb2.RAW,
            )
        ],
    )
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(streaming_aead.StreamingAead)


def test_parameters_are_those_of_the_named_template() -> None:
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    form = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
    assert form.key_size == form.params.derived_key_size == 32
    assert form.params.ciphertext_segment_size == 1 << 20
    assert form.params.hkdf_hash_type == common_pb2.SHA256


@pytest.mark.parametrize("size", SIZES)
def test_tink_reads_ours(primitive: streaming_aead.StreamingAead, size: int) -> None:
    sink = io.BytesIO()
    seal_stream(io.BytesIO(PLAIN[:size]), sink, key=KEY, context=CONTEXT)
    with primitive.new_decrypting_stream(io.BytesIO(sink.getvalue()), CONTEXT) as plain:
        assert plain.read() == PLAIN[:size]


@pytest.mark.parametrize("size", SIZES)
def test_we_read_tinks(primitive: streaming_aead.StreamingAead, size: int) -> None:
    sink = Kept()
    with primitive.new_encrypting_stream(sink, CONTEXT) as stream:
        stream.write(PLAIN[:size])
    with SealedReader(io.BytesIO(sink.kept), key=KEY, context=CONTEXT) as reader:
        assert reader.read_at(0, size + 1) == PLAIN[:size]
    with pytest.raises(NotAuthenticError):
        SealedReader(io.BytesIO(sink.kept), key=KEY, context=b"other")
