"""Evaluates a compiled pack in-process: OPA's Wasm ABI 1.3 under wasmtime, bounded, failing closed.

Sources: OPA 1.22, "WebAssembly" (ABI 1.3, `opa_eval` with a heap that starts over at every evaluation); WebAssembly
core specification 2.0, section 4 (traps). A module gets no host function that does anything: a pack that needs a
built-in from outside is refused when it is loaded, so there is no network, clock or randomness to reach.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import wasmtime

from policy.bundle import Bundle
from policy.decision import Decision
from policy.documents import Json, encode_document, merge, read_json_object
from policy.errors import BundleError, PolicyInputError, PolicyLimitError, PolicyUndecidedError

DEFAULT_FUEL: Final = 200_000_000
"""Wasm instructions, about, that one evaluation may take: two to three orders above what the shipped packs need."""

DEFAULT_MEMORY_LIMIT: Final = 64 << 20
"""Bytes of linear memory that one instance may have."""

MAX_RESULT: Final = 4 << 20
"""No decision document is longer than 4 MiB."""

MAX_IDLE: Final = 16
"""Instances kept between evaluations; more threads than this at once make instances that are thrown away."""

SHAPES: Final = "shapes"
"""Data that no overlay may touch: the types that rules check before they compare."""

_Exports: TypeAlias = Mapping[str, object]

_PAGE: Final = 65_536
_ABI: Final = (1, 3)
_MIN_PAGES: Final = 16
_CHUNK: Final = 16_384


class PolicyEngine:
    """One pack with its data, ready to decide; safe to share between threads.

    A change of policy or data is another engine: nothing in this one ever changes.

    Args:
        bundle: the compiled pack.
        data: laid over the bundle's own data, objects merged name by name (``{"settings": {…}}``).
        fuel: Wasm instructions, about, that one evaluation may take.
        memory_limit: bytes of linear memory that one evaluation may use.

    Raises:
        BundleError: the module is not OPA's ABI 1.3, needs a host built-in, or does not start within the limits.
        PolicyInputError: the data is not JSON without floats, or stands where the pack's own rules are.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        data: Mapping[str, object] | None = None,
        fuel: int = DEFAULT_FUEL,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        overlay_bytes = encode_document(data or {}, what="policy data")
        overlay = read_json_object(overlay_bytes, what="policy data")
        taken = overlay.keys() & (bundle.packages | {SHAPES})
        if taken:
            raise PolicyInputError(f"policy data: {', '.join(sorted(taken))} belong to the pack's rules")
        self.bundle: Final = bundle
        self.data: Final[Mapping[str, Json]] = merge(bundle.data, overlay)
        self.digest: Final = hashlib.sha256(bundle.digest + overlay_bytes).hexdigest()
        """What identifies this policy in leases and records: SHA-256 of bundle digest ‖ RFC 8785 of `data`, hex."""
        self._data_bytes: Final = encode_document(self.data, what="policy data")
        self._fuel: Final = fuel
        self._memory_limit: Final = memory_limit
        config = wasmtime.Config()
        config.consume_fuel = True
        self._engine: Final = wasmtime.Engine(config)
        try:
            self._module: Final = wasmtime.Module(self._engine, bundle.wasm)
        except wasmtime.WasmtimeError as error:
            raise BundleError(f"policy bundle: /policy.wasm is not a Wasm module: {_first_line(error)}") from None
        self._idle: Final[list[_Instance]] = [self._instance()]
        self._lock: Final = threading.Lock()

    def evaluate(self, document: Mapping[str, object]) -> Decision:
        """Decide about the input `document`.

        Raises:
            PolicyInputError: the input is not JSON without floats, or is too large.
            PolicyLimitError: out of fuel or memory.
            PolicyUndecidedError: the entrypoint is undefined, the module trapped, or its document is malformed.
        """
        return self.evaluate_bytes(encode_document(document, what="policy input"))

    def evaluate_bytes(self, document: bytes) -> Decision:
        """Decide about an input that `policy.documents.encode_document` wrote, or that was stored in that form.

        Raises:
            PolicyLimitError, PolicyUndecidedError: as `evaluate`.
        """
        with self._lock:
            instance = self._idle.pop() if self._idle else None
        if instance is None:
            instance = self._instance()
        # An instance that raised is not given back: after a trap its memory may hold anything.
        result = instance.evaluate(document, self._fuel)
        with self._lock:
            if len(self._idle) < MAX_IDLE:
                self._idle.append(instance)
        return Decision.from_document(_single_result(result))

    def _instance(self) -> _Instance:
        return _Instance(
            engine=self._engine,
            module=self._module,
            entrypoint=self.bundle.entrypoint,
            data=self._data_bytes,
            fuel=self._fuel,
            memory_limit=self._memory_limit,
        )


class _Abort(Exception):  # noqa: N818 - OPA's own word: opa_abort
    """The module called `opa_abort` with a message."""


class _Instance:
    """One instance of the module with its memory and the data parsed into it; for one thread at a time."""

    __slots__ = ("_data_address", "_entrypoint", "_heap", "_memory", "_opa_eval", "_store")

    def __init__(
        self,
        *,
        engine: wasmtime.Engine,
        module: wasmtime.Module,
        entrypoint: str,
        data: bytes,
        fuel: int,
        memory_limit: int,
    ) -> None:
        store = wasmtime.Store(engine)
        store.set_fuel(fuel)
        store.set_limits(memory_size=memory_limit, instances=1, memories=2, tables=2)
        self._store = store
        try:
            memory = wasmtime.Memory(
                store, wasmtime.MemoryType(wasmtime.Limits(_MIN_PAGES, max(_MIN_PAGES, memory_limit // _PAGE)))
            )
            self._memory = memory
            exports = wasmtime.Instance(store, module, self._imports(module)).exports(store)
            self._check_abi(exports)
            if self._json(exports, _call(exports, "builtins", store)) != {}:
                raise BundleError(
                    "policy bundle: the pack needs built-ins that Wasm does not have; see capabilities.json"
                )
            entrypoints = self._json(exports, _call(exports, "entrypoints", store))
            if list(entrypoints) != [entrypoint]:
                raise BundleError(f"policy bundle: the module decides {sorted(entrypoints)}, not {entrypoint}")
            number = entrypoints[entrypoint]
            if not isinstance(number, int):
                raise BundleError("policy bundle: the module's entrypoint has no number")
            self._entrypoint: int = number
            address = _call(exports, "opa_malloc", store, len(data))
            memory.write(store, data, address)
            self._data_address = _call(exports, "opa_json_parse", store, address, len(data))
            if self._data_address == 0:
                raise BundleError("policy bundle: the module could not parse its data")
            # Blocks freed so far would leak at the first reset of the heap (OPA, "External Data"): stash them.
            _function(exports, "opa_heap_blocks_stash")(store)
            self._heap = _call(exports, "opa_heap_ptr_get", store)
            self._opa_eval = _function(exports, "opa_eval")
        except (wasmtime.WasmtimeError, wasmtime.Trap, _Abort) as error:
            raise BundleError(f"policy bundle: the module does not start: {_first_line(error)}") from None

    def evaluate(self, document: bytes, fuel: int) -> bytes:
        """The JSON text of the result set.

        Raises:
            PolicyLimitError, PolicyUndecidedError: as `PolicyEngine.evaluate`.
        """
        store, heap = self._store, self._heap
        store.set_fuel(fuel)
        try:
            missing = heap + len(document) - self._memory.data_len(store)
            if missing > 0:
                self._memory.grow(store, -(-missing // _PAGE))
            self._memory.write(store, document, heap)
            address = self._opa_eval(
                store, 0, self._entrypoint, self._data_address, heap, len(document), heap + len(document), 0
            )
            return self._text(int(address))
        except _Abort as error:
            if "malloc" in str(error):
                raise PolicyLimitError(f"policy: out of memory: {error}") from None
            raise PolicyUndecidedError(f"policy: aborted: {error}") from None
        except wasmtime.Trap as error:
            if error.trap_code is wasmtime.TrapCode.OUT_OF_FUEL:
                raise PolicyLimitError(f"policy: out of fuel after about {fuel} instructions") from None
            raise PolicyUndecidedError(f"policy: trapped: {_first_line(error)}") from None
        except wasmtime.WasmtimeError as error:
            raise PolicyLimitError(f"policy: {_first_line(error)}") from None

    def _imports(self, module: wasmtime.Module) -> list[wasmtime.Func | wasmtime.Memory]:
        imports: list[wasmtime.Func | wasmtime.Memory] = []
        for wanted in module.imports:
            if wanted.module == "env" and wanted.name == "memory" and isinstance(wanted.type, wasmtime.MemoryType):
                imports.append(self._memory)
            elif wanted.module == "env" and isinstance(wanted.type, wasmtime.FuncType):
                imports.append(wasmtime.Func(self._store, wanted.type, self._host_function(wanted.name or "")))
            else:
                raise BundleError(f"policy bundle: the module asks for {wanted.module}.{wanted.name}")
        return imports

    def _host_function(self, name: str) -> Callable[..., None]:
        def abort(address: int) -> None:
            raise _Abort(self._text(address)[:200].decode("utf-8", "replace"))

        def refuse(*_arguments: int) -> None:
            raise _Abort(f"the module called {name}, which no pack may need")

        return abort if name == "opa_abort" else refuse

    def _check_abi(self, exports: _Exports) -> None:
        found: list[object] = []
        for name in ("opa_wasm_abi_version", "opa_wasm_abi_minor_version"):
            item = exports.get(name)
            found.append(item.value(self._store) if isinstance(item, wasmtime.Global) else None)
        if tuple(found) != _ABI:
            raise BundleError(f"policy bundle: Wasm ABI {found[0]}.{found[1]}, expected {_ABI[0]}.{_ABI[1]}")

    def _json(self, exports: _Exports, value: int) -> dict[str, Json]:
        text = self._text(_call(exports, "opa_json_dump", self._store, value))
        try:
            return read_json_object(text, what="policy bundle: the module's own tables")
        except PolicyInputError as error:
            raise BundleError(str(error)) from None

    def _text(self, address: int) -> bytes:
        """The NUL-terminated text at `address`, at most `MAX_RESULT` bytes of it."""
        start = address & 0xFFFFFFFF
        end = min(self._memory.data_len(self._store), start + MAX_RESULT)
        text = bytearray()
        while start < end:
            chunk = self._memory.read(self._store, start, min(start + _CHUNK, end))
            length = chunk.find(0)
            if length >= 0:
                return bytes(text + chunk[:length])
            text += chunk
            start += len(chunk)
        raise PolicyUndecidedError(f"policy: the result has no end within {MAX_RESULT} bytes")


def _function(exports: _Exports, name: str) -> wasmtime.Func:
    item = exports.get(name)
    if not isinstance(item, wasmtime.Func):
        raise BundleError(f"policy bundle: the module does not export {name}")
    return item


def _call(exports: _Exports, name: str, store: wasmtime.Store, *arguments: int) -> int:
    return int(_function(exports, name)(store, *arguments))


def _first_line(error: Exception) -> str:
    """The last cause of wasmtime's multi-line text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _single_result(text: bytes) -> object:
    # OPA returns a result set: [{"result": …}], or [] where the entrypoint is undefined.
    try:
        wrapped = read_json_object(b'{"set":' + text + b"}", what="policy: decision document")
    except PolicyInputError as error:
        raise PolicyUndecidedError(str(error)) from None
    match wrapped:
        case {"set": [{"result": result}]}:
            return result
        case {"set": []}:
            raise PolicyUndecidedError("policy: the decision is undefined; give `decision` a value for every input")
        case _:
            raise PolicyUndecidedError("policy: the module returned no single result")
