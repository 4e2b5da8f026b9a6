"""The parties that sign for sites, as the configuration names them."""

from __future__ import annotations

from typing import Final

from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError, SigningKeyError, StatementError
from keybroker.keys.signing import parse_public_key
from keybroker.statements import Authorities

_MAX_KEY: Final = 4_096


def load_authorities(config: BrokerConfig) -> Authorities:
    """Load their public keys.

    Raises:
        ConfigError: a file is missing or is no Ed25519 public key, or two names have one key.
    """
    keys = {}
    try:
        for authority in config.estate.authorities:
            path = config.path(authority.public_key)
            with path.open("rb") as file:
                keys[authority.name] = parse_public_key(file.read(_MAX_KEY), what=str(path))
        return Authorities.of(keys, threshold=config.estate.site_signatures)
    except OSError as error:
        raise ConfigError(f"estate.authorities: {error.filename}: {error.strerror}") from None
    except (SigningKeyError, StatementError) as error:
        raise ConfigError(f"estate.authorities: {error}") from None
