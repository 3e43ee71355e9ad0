#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Proof 9: no input breaks a promise of a reader, of calls in any order, or of the tape. libFuzzer looks for one in
# tests/fuzz, with AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer, for a minute of a core each; in full
# for an hour. It begins with the corpus in tests/fuzz. What it adds stays in the build folder, for
# tests/fuzz/minimise, and so does an input that breaks a promise.
set -euo pipefail
# shellcheck source=tests/proofs/another_build.sh
. "$(dirname "${BASH_SOURCE[0]}")/another_build.sh"
fuzz=$source_dir/tests/fuzz
build=$beside-fuzz
found=$build/found
work=${TMPDIR:-/tmp}
seconds=60
[ "${1:-}" != --full ] || seconds=3600
TIMEFORMAT='%U %S'

broken() {
  echo "proof 9: broken, $1"
  exit 1
}

# figure LOG TEXT: the number behind the last such text.
figure() {
  sed -n "s/.*$2 *\([0-9]*\).*/\1/p" "$1" | tail -n 1
}

# look_for NAME SECONDS LOG: seconds of the clock; those of a core go to LOG.time.
look_for() {
  local name=$1 seconds=$2 log=$3 options=()
  [ ! -f "$fuzz/$name.dict" ] || options=(-dict="$fuzz/$name.dict")
  {
    time "$build/tests/fuzz/fuzz_$name" "${options[@]}" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 \
      -malloc_limit_mb=512 -entropic=0 -print_final_stats=1 -artifact_prefix="$found/$name-" "$build/grown/$name" \
      "$fuzz/corpus/$name" > "$log" 2>&1
  } 2> "$log.time" || {
    tail -n 60 "$log" >&2
    broken "$name: $(grep -m 1 -E 'ERROR|runtime error' "$log" || tail -n 1 "$log"); the input is in $found"
  }
}

# look NAME: figures of what was tried, or the end of all. On a busy machine an hour of the clock is not one of a core.
look() {
  local name=$1 log=$work/$1.log spent=0 n_inputs=0 left
  rm -rf "$build/grown/$name"
  mkdir -p "$build/grown/$name"
  while left=$((seconds - spent)) && [ "$left" -gt 0 ]; do
    look_for "$name" $((left > 5 ? left : 5)) "$log"
    spent=$((spent + $(awk '{ print int($1 + $2 + 0.5) }' "$log.time")))
    n_inputs=$((n_inputs + $(figure "$log" number_of_executed_units:)))
  done
  figures+=("$name: $n_inputs inputs, $(figure "$log" cov:) edges reached, a corpus of $(figure "$log" corp:)")
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
echo "proof 9: held, $seconds s of a core each: ${joined:2}"
