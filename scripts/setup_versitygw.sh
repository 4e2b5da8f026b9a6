#!/bin/sh
# Find or build the pinned versitygw, an S3 server over a folder, for the tests that publish the log in a bucket. In this
# order: $KEYSTEAD_VERSITYGW, `versitygw` on PATH, `go install` of the pinned version into .cache/bin, vouched for by the
# Go checksum database. Where none can be had one line says so and the set-up goes on: what needs it skips, loudly.
# Usage: sh scripts/setup_versitygw.sh VERSION, from the repository root.
set -u
version=$1
module=github.com/versity/versitygw

# Released programs say their version; of those that `go install` made only Go can tell it.
matches() {
    [ "$("$1" --version 2>/dev/null | sed -n 's/^Version *: *v*//p')" = "$version" ] && return 0
    go version -m "$1" 2>/dev/null | grep -q "^[[:space:]]*mod[[:space:]]*$module[[:space:]]*v$version[[:space:]]"
}

without() {
    echo "no versitygw $version ($1): the tests that publish the log in a bucket are skipped" >&2
    exit 0
}

if [ -n "${KEYSTEAD_VERSITYGW:-}" ]; then
    # Named on purpose: another version is an error, not a reason to look elsewhere.
    matches "$KEYSTEAD_VERSITYGW" && exit 0
    echo "KEYSTEAD_VERSITYGW names $KEYSTEAD_VERSITYGW, which is not versitygw $version: name that version or unset it" >&2
    exit 2
fi
# .cache/bin comes first on the Makefile's PATH, so this finds one that was built before.
on_path=$(command -v versitygw) && matches "$on_path" && exit 0

command -v go >/dev/null 2>&1 || without 'neither on PATH nor is there a Go to build it with'
[ "$(go env GOSUMDB)" != off ] || without 'the Go checksum database is switched off'

mkdir -p .cache/bin
log=.cache/versitygw-build.log
echo "building versitygw $version with go install; this takes some minutes, once" >&2
# The private-module patterns would exempt the module from the checksum database: no module is called `none`.
if GOBIN="$(pwd)/.cache/bin" GOPRIVATE=none GONOSUMDB=none GOINSECURE=none CGO_ENABLED=0 \
    go install "$module/cmd/versitygw@v$version" >"$log" 2>&1 && matches .cache/bin/versitygw; then
    exit 0
fi
rm -f .cache/bin/versitygw
without "go install failed; see $log"
