"""The key hierarchy: root → one key per tenant → data keys, one per asset version.

Each level is wrapped under the one above (`keybroker.keys.wrap`), with a context that says what it is: a data key with
`keystead.binding.data_key_context`, so that a row moved to another tenant, asset or version does not open.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Final

from sqlalchemy import Connection

from keybroker.errors import KeyUnwrapError, NotFoundError
from keybroker.keys.root import RootKey
from keybroker.keys.wrap import KEY_SIZE, fingerprint, unwrap, wrap, wrapping_key_id
from keybroker.store import wrapped_keys
from keystead.binding import LABEL_PREFIX, AssetRef, HpkePrivateKey, data_key_context, encode, u64

LABEL_TENANT_KEY: Final = LABEL_PREFIX + "tenant-key"
LABEL_BROKER_KEY: Final = LABEL_PREFIX + "broker-key"

HPKE_KEY_NAME: Final = "hpke"
"""Name of the HPKE key that owners wrap data keys to."""

_CACHED_TENANTS: Final = 256
_MAX_GENERATION_DIGITS: Final = 9


class KeyHierarchy:
    """Wraps and unwraps data keys. Safe to share between threads.

    Tenants' keys that were used lately stay unwrapped in memory, so that the root is not asked for each lease.
    """

    def __init__(self, root: RootKey, *, cached_tenants: int = _CACHED_TENANTS) -> None:
        self._root = root
        self._cached_tenants = cached_tenants
        # By tenant and key id, which holds the key's fingerprint: one whose insertion was rolled back is never found
        # again.
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def wrap_data_key(
        self, connection: Connection, data_key: bytes, *, tenant: str, ref: AssetRef, key_id: str, now: int
    ) -> bytes:
        """Wrap a data key for storage in the same transaction; draws the tenant's key if this is its first.

        Raises:
            RootKeyError: the root cannot be used now.
            KeyUnwrapError: the tenant's key does not open under this root.
        """
        row = wrapped_keys.newest_tenant_key(connection, tenant)
        if row is None:
            drawn = wrapped_keys.TenantKeyRow(
                tenant=tenant,
                generation=1,
                wrapped=self._root.wrap(os.urandom(KEY_SIZE), _tenant_context(tenant, 1)),
                created_at=now,
            )
            # Another replica may be first: what stands in the table is what counts.
            row = wrapped_keys.insert_tenant_key(connection, drawn)
        key = self._root.unwrap(row.wrapped, _tenant_context(tenant, row.generation))
        context = data_key_context(tenant=tenant, ref=ref, key_id=key_id)
        return wrap(data_key, key=key, key_id=_tenant_key_id(row.generation, key), context=context)

    def unwrap_data_key(
        self, connection: Connection, wrapped: bytes, *, tenant: str, ref: AssetRef, key_id: str
    ) -> bytes:
        """Open a data key; `connection` is used only if the tenant's key is not in memory.

        Raises:
            KeyUnwrapError: it belongs to another tenant, asset, version or key id, was altered, or its tenant's key
                is gone (which is how a tenant's keys are shredded) or does not open.
            RootKeyError: the root cannot be used now.
        """
        wrapping_id = wrapping_key_id(wrapped)
        key = self._tenant_key(connection, tenant, wrapping_id)
        context = data_key_context(tenant=tenant, ref=ref, key_id=key_id)
        return unwrap(wrapped, key=key, key_id=wrapping_id, context=context)

    def forget(self) -> None:
        """Drop every unwrapped key from memory, for example after a tenant's keys were shredded."""
        with self._lock:
            self._cache.clear()

    def _tenant_key(self, connection: Connection, tenant: str, wrapping_id: str) -> bytes:
        generation = _generation(wrapping_id)
        with self._lock:
            cached = self._cache.get((tenant, wrapping_id))
            if cached is not None:
                self._cache.move_to_end((tenant, wrapping_id))
                return cached
        try:
            row = wrapped_keys.get_tenant_key(connection, tenant, generation)
        except NotFoundError:
            raise KeyUnwrapError(
                f"the key of tenant {tenant!r}, generation {generation}, is gone: what it wraps cannot be opened"
            ) from None
        key = self._root.unwrap(row.wrapped, _tenant_context(tenant, generation))
        if _tenant_key_id(generation, key) != wrapping_id:
            raise KeyUnwrapError(
                f"wrapped under {wrapping_id!r}, tenant {tenant!r} has another key of generation {generation}"
            )
        with self._lock:
            self._cache[tenant, wrapping_id] = key
            while len(self._cache) > self._cached_tenants:
                self._cache.popitem(last=False)
        return key


def load_or_create_hpke_key(connection: Connection, root: RootKey, *, now: int) -> HpkePrivateKey:
    """The HPKE key that owners wrap data keys to; every replica gets the same one. `connection` must be able to write.

    Raises:
        KeyUnwrapError: it does not open under this root.
        RootKeyError: the root cannot be used now.
    """
    context = encode(LABEL_BROKER_KEY, HPKE_KEY_NAME.encode("ascii"))
    wrapped = wrapped_keys.find_broker_key(connection, HPKE_KEY_NAME)
    if wrapped is None:
        drawn = root.wrap(HpkePrivateKey.generate().to_bytes(), context)
        wrapped = wrapped_keys.insert_broker_key(connection, name=HPKE_KEY_NAME, wrapped=drawn, now=now)
    return HpkePrivateKey.from_bytes(root.unwrap(wrapped, context))


def _tenant_context(tenant: str, generation: int) -> bytes:
    return encode(LABEL_TENANT_KEY, tenant.encode("ascii"), u64(generation))


def _tenant_key_id(generation: int, key: bytes) -> str:
    return f"tenant:{generation}:{fingerprint(key)}"


def _generation(wrapping_id: str) -> int:
    kind, _, rest = wrapping_id.partition(":")
    generation, _, _print = rest.partition(":")
    if kind != "tenant" or not generation.isdigit() or len(generation) > _MAX_GENERATION_DIGITS:
        raise KeyUnwrapError(f"wrapped under {wrapping_id!r:.80}, which is no tenant's key")
    return int(generation)
