#!/bin/sh
# Install the Debian package that tests need, where this is Debian and we are root; anyone else gets one line that names
# what is missing and what will be skipped. Never an error: what needs it skips, loudly.
# Usage: sh scripts/setup_packages.sh, from the repository root.
set -u

present() {
    [ -n "${KEYSTEAD_POSTGRES_BIN:-}" ] && return 0
    command -v initdb >/dev/null 2>&1 && return 0
    for program in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$program" ] && return 0
    done
    return 1
}

without() {
    echo "no PostgreSQL ($1): the tests against it are skipped; the Debian package is postgresql" >&2
    exit 0
}

present && exit 0
command -v apt-get >/dev/null 2>&1 || without 'not a Debian system'
[ "$(id -u)" = 0 ] || without 'not root'

mkdir -p .cache
log=.cache/packages.log
echo 'installing the Debian package postgresql for the tests' >&2
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install --yes --no-install-recommends postgresql; } >"$log" 2>&1 </dev/null && present && exit 0
without "apt-get failed; see $log"
