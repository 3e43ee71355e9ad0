#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Proof 9: no input breaks a promise of a reader, of calls in any order, or of the tape. libFuzzer looks for one in
# tests/fuzz, with AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer, a minute each; in full an hour. An
# input that it finds stays in the build folder.
set -euo pipefail
# shellcheck source=tests/proofs/another_build.sh
. "$(dirname "${BASH_SOURCE[0]}")/another_build.sh"
fuzz=$source_dir/tests/fuzz
build=$beside-fuzz
found=$build/found
work=${TMPDIR:-/tmp}
seconds=60
[ "${1:-}" != --full ] || seconds=3600

broken() {
  echo "proof 9: broken, $1"
  exit 1
}

# figure LOG TEXT: the number behind the last such text.
figure() {
  sed -n "s/.*$2 *\([0-9]*\).*/\1/p" "$1" | tail -n 1
}

# look NAME: figures of what was tried, or the end of all.
look() {
  local name=$1 log=$work/$1.log options=()
  [ ! -f "$fuzz/$name.dict" ] || options=(-dict="$fuzz/$name.dict")
  mkdir -p "$work/$name"
  "$build/tests/fuzz/fuzz_$name" "${options[@]}" -max_total_time=$seconds -timeout=10 -rss_limit_mb=2048 \
    -malloc_limit_mb=512 -entropic=0 -print_final_stats=1 -artifact_prefix="$found/$name-" "$work/$name" "$fuzz/corpus/$name" \
    > "$log" 2>&1 || {
    tail -n 60 "$log" >&2
    broken "$name: $(grep -m 1 -E 'ERROR|runtime error' "$log"); the input is in $found"
  }
  figures+=("$name: $(figure "$log" number_of_executed_units:) inputs, $(figure "$log" cov:) edges reached, a corpus of $(figure "$log" corp:)")
}

command -v clang > /dev/null || broken "there is no clang"
mkdir -p "$found"
figures=()
for name in readers api tape; do
  build_in "$build" clang "tests/fuzz/fuzz_$name" -Dfuzz=true -Db_sanitize=address,undefined "${SANITIZED[@]}" ||
    broken "it cannot be built"
  look $name
done
joined=$(printf '; %s' "${figures[@]}")
echo "proof 9: held, $seconds s each: ${joined:2}"
