#!/bin/sh
# Find or build the pinned opa. In this order: $KEYSTEAD_OPA, `opa` on PATH, `go install` of the pinned version into
# .cache/bin, vouched for by the Go checksum database. Where none can be had one line says so and the set-up goes on:
# what needs opa skips, loudly.
# Usage: sh scripts/setup_opa.sh VERSION, from the repository root.
set -u
version=$1

matches() {
    [ "$("$1" version 2>/dev/null | sed -n 's/^Version: *//p')" = "$version" ]
}

without() {
    echo "no opa $version ($1): policies are not checked or compiled here, and the tests that need opa are skipped" >&2
    exit 0
}

if [ -n "${KEYSTEAD_OPA:-}" ]; then
    # Named on purpose: another version is an error, not a reason to look elsewhere.
    matches "$KEYSTEAD_OPA" && exit 0
    echo "KEYSTEAD_OPA names $KEYSTEAD_OPA, which is not opa $version: name that version or unset it" >&2
    exit 2
fi
# .cache/bin comes first on the Makefile's PATH, so this finds an opa that was built before.
on_path=$(command -v opa) && matches "$on_path" && exit 0

command -v go >/dev/null 2>&1 || without 'neither on PATH nor is there a Go to build it with'
[ "$(go env GOSUMDB)" != off ] || without 'the Go checksum database is switched off'

mkdir -p .cache/bin
log=.cache/opa-build.log
echo "building opa $version with go install; this takes some minutes, once" >&2
# The private-module patterns would exempt the module from the checksum database: no module is called `none`.
if GOBIN="$(pwd)/.cache/bin" GOPRIVATE=none GONOSUMDB=none GOINSECURE=none CGO_ENABLED=0 \
    go install "github.com/open-policy-agent/opa@v$version" >"$log" 2>&1 && matches .cache/bin/opa; then
    exit 0
fi
rm -f .cache/bin/opa
without "go install failed; see $log"
