#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Makes the tarball of a release from what is committed, builds it without git, runs all tests there, and installs it.
# Usage: dist.sh [FOLDER for the tarball]
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
to=${1:-$source_dir}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone -q "$source_dir" "$work/libmelu"
meson setup "$work/build" "$work/libmelu" -Dtests=enabled -Dwerror=true > "$work/log" || { tail "$work/log"; exit 1; }
# Meson's own test of it builds, tests and installs, in a folder that is no repository.
GIT_CEILING_DIRECTORIES=$work meson dist -C "$work/build" --formats gztar > "$work/log" 2>&1 || { tail -60 "$work/log"; exit 1; }
grep -E '^(Ok|Fail|Timeout|Skipped):|Distribution package' "$work/log"
cp "$work/build/meson-dist/"* "$to/"
ls -l "$to"/libmelu-*.tar.gz*
