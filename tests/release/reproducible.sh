#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two builds, in other folders, at other times, in another language and time zone, on another number of cores, with another
# umask, must install the same bytes. Usage: reproducible.sh [MESON SETUP ARGUMENT...]
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build NAME JOBS [MESON SETUP ARGUMENT...]: prints the sums of what it installs.
build() {
  local folder=$work/$1 jobs=$2
  shift 2
  mkdir -p "$folder"
  (cd "$source_dir" && git ls-files -z -co --exclude-standard 2> /dev/null || find . -path './build*' -prune -o -type f -print0) |
    tar -C "$source_dir" --null --ignore-failed-read -cf - -T - | tar -C "$folder" -xmf -
  (cd "$folder" && CCACHE_DISABLE=1 meson setup build . --buildtype=release -Dtests=disabled "$@" &&
    CCACHE_DISABLE=1 ninja -j "$jobs" -C build && meson install -C build --no-rebuild --destdir "$folder/installed") > "$folder/log" 2>&1 ||
    { tail "$folder/log" >&2; exit 1; }
  cd "$folder/installed"
  find . -type f -exec sha256sum {} + | sort -k 2
  find . -type l -printf '%l  %p\n' | sort -k 2
  find . -printf '%M  %p\n' | sort -k 2
}

(umask 022 && LC_ALL=C TZ=UTC build one 1 "$@") > "$work/one.sums"
(umask 022 && LC_ALL=C.UTF-8 TZ=Asia/Kathmandu build "another/and longer" 2 "$@") > "$work/another.sums"
cmp "$work/one.sums" "$work/another.sums" || { diff "$work/one.sums" "$work/another.sums"; exit 1; }
# What would show that nothing was compared.
grep -q 'libmelu.so.1.0' "$work/one.sums" && grep -q 'libmelu.a' "$work/one.sums"
grep -c '^[0-9a-f]\{64\}' "$work/one.sums" | sed 's/$/ files have the same bytes in both builds/'
