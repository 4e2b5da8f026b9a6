"""Where in an S3 object store a log is published: ``s3://BUCKET[/PREFIX]``.

Endpoint, region and credentials stand apart from it: they are of the installation, and credentials of nobody's
configuration file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from keybroker.errors import ConfigError

SCHEME: Final = "s3://"

ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(?:/[A-Za-z0-9/._-]{0,200})?")
"""The address of an object store; nobody's name and password in it."""

_OTHER_SCHEME: Final = re.compile(r"[a-z0-9]{1,10}://")
_BUCKET: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")
_MAX_PREFIX: Final = 512


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """A bucket, and a prefix in it.

    Attributes:
        bucket: its name (Amazon S3 user guide, General purpose bucket naming rules).
        prefix: the log's objects are below it; empty where the bucket holds nothing but the log.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address that `url` names.

        Raises:
            ConfigError: another scheme, a name that no bucket can have, or a prefix with odd segments. What follows the
                scheme is not repeated: somebody may have put credentials there.
        """
        if not url.startswith(SCHEME):
            found = _OTHER_SCHEME.match(url)
            raise ConfigError(
                f"{found[0] if found else ''}…: logs are published in a folder, or in a bucket {SCHEME}BUCKET/PREFIX"
            )
        rest = url.removeprefix(SCHEME)
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise ConfigError(f"{SCHEME}…: the name of a bucket has 3 to 63 small letters, digits, hyphens and dots")
        prefix = prefix.removesuffix("/")
        if len(prefix) > _MAX_PREFIX or (prefix and not all(map(_SEGMENT.fullmatch, prefix.split("/")))):
            raise ConfigError(
                f"{SCHEME}{bucket}/…: a prefix has segments of letters, digits and _.+=@-, none of them empty"
            )
        return cls(bucket, prefix)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


def is_address(where: str) -> bool:
    """True where `where` is meant as an address and not as a folder."""
    return "://" in where
