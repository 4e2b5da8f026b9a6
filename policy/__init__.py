"""Decisions: Rego packs, compiled by OPA to Wasm and evaluated in-process, failing closed."""
