"""Addresses of buckets: what is taken, and what is refused without repeating it."""

from __future__ import annotations

import pytest

from keybroker.bucket_address import ENDPOINT, BucketAddress, is_address
from keybroker.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://logs", "logs", ""),
        ("s3://logs/", "logs", ""),
        ("s3://my.logs-1/a", "my.logs-1", "a"),
        ("s3://logs/a/b_c.d=e/", "logs", "a/b_c.d=e"),
    ],
)
def test_bucket_and_prefix(url, bucket, prefix):
    address = BucketAddress.parse(url)
    assert (address.bucket, address.prefix) == (bucket, prefix)
    assert str(address) == url.rstrip("/")
    assert BucketAddress.parse(str(address)) == address
    assert is_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///a",
        "s3://ab",
        "s3://" + "a" * 64,
        "s3://Logs",
        "s3://a..b",
        "s3://-logs",
        "s3://logs//a",
        "s3://logs/../a",
        "s3://logs/a/./b",
        "s3://logs/.staging",
        "s3://logs/a b",
        "s3://logs/a?b",
        "s3://logs/é",
        "s3://logs/" + "a" * 513,
        "gs://logs",
        "az://logs",
        "https://logs.s3.amazonaws.com",
        "logs/a",
    ],
)
def test_what_no_bucket_can_be_called_is_refused(url):
    with pytest.raises(ConfigError):
        BucketAddress.parse(url)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    for url in ("s3://AKIA:hunter2@logs/a", "s3://hunter2@logs", "file://hunter2"):
        with pytest.raises(ConfigError) as caught:
            BucketAddress.parse(url)
        assert "hunter2" not in str(caught.value)
    assert not ENDPOINT.fullmatch("https://user:hunter2@s3.example")


@pytest.mark.parametrize("where", ["public", "/srv/public", "./a:b"])
def test_a_folder_is_no_address(where):
    assert not is_address(where)
