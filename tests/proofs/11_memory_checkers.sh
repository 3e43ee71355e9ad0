#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Proof 11: no test makes the library read or write where it may not, lose memory, or do what C leaves undefined. The
# suite runs under the address and undefined-behaviour sanitizers of gcc and of clang, and its C programs under
# Valgrind's memcheck: with --full all of it, which takes hours, else some of it. Each must first see planted faults.
set -euo pipefail
# shellcheck source=tests/proofs/another_build.sh
. "$(dirname "${BASH_SOURCE[0]}")/another_build.sh"
temp=${TMPDIR:-/tmp}

# The small size: of each folder of lib/ a suite, with a hundredth of its random trials.
pattern='base|tensor|plan|read|model_file|fit|own_loss|user|catalog'
# Not under sanitizers: what looks at sources and symbols, or makes programs of its own without sanitizers; proofs that
# stand in front of malloc or make builds of their own.
never='layers|symbols|header|consumers|cpp|python|proof_(0[128]|1[0-9])_.*'
compilers=(gcc clang)
if [ "${1:-}" == --full ]; then
  pattern='.*'
else
  compilers=(gcc)
  export MELU_TEST_DIVISOR=100
fi

broken() {
  echo "proof 11: broken, $1"
  exit 1
}

# What sanitizers and memcheck are to do. Forks and time limits of Check's would hide leaks, and take too long.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export CK_FORK=no
memcheck=(valgrind -q --error-exitcode=66 --leak-check=full --errors-for-leak-kinds=definite)

# plants COMPILER FLAGS COMMAND...: a program that does wrong by its argument must end with an error, each of three
# times, and not if it does nothing wrong. Memcheck does not see the last.
plants() {
  local compiler=$1 flags=$2 fault
  shift 2
  cat > "$temp/planted.c" << 'END'
#include <limits.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  const int fault = argc > 1 ? atoi(argv[1]) : 0;
  char *volatile memory = malloc(8);
  if (fault == 1) memory[8] = memory[0] = 1;
  if (fault == 2) memory = NULL;
  if (fault == 3) argc += INT_MAX;
  free(memory);
  return argc == 0;
}
END
  # shellcheck disable=SC2086
  "$compiler" $flags "$temp/planted.c" -o "$temp/planted" || broken "$compiler has no sanitizers"
  "$@" "$temp/planted" 2> /dev/null || broken "${*:-$compiler} sees faults where there are none"
  for fault in 1 2 ${flags:+3}; do
    ! "$@" "$temp/planted" "$fault" 2> /dev/null || broken "${*:-$compiler} does not see planted fault $fault"
  done
}

# chosen BUILD KIND: names of the tests of a build that are to run, and what ninja has to build for each. KIND: "any", or
# "program" for those that are programs of ours.
chosen() {
  meson introspect --tests "$1" | python3 -c '
import json, os, re, sys
build, kind, pattern, never = sys.argv[1:]
for test in json.load(sys.stdin):
  program = os.path.relpath(test["cmd"][0], build)
  is_ours = not program.startswith("..")
  if re.fullmatch(pattern, test["name"]) and not re.fullmatch(never, test["name"]) and (is_ours or kind == "any"):
    print(test["name"], program if is_ours else "all")
' "$1" "$2" "$pattern" "$never"
}

# run_suite WHAT BUILD KIND [OPTION...]: of meson test.
run_suite() {
  local what=$1 folder=$2 status=0 names targets
  mapfile -t names < <(chosen "$folder" "$3" | cut -d ' ' -f 1)
  mapfile -t targets < <(chosen "$folder" "$3" | cut -d ' ' -f 2 | sort -u)
  shift 3
  [ ${#names[@]} -gt 0 ] || broken "$what: there are no tests"
  ninja -C "$folder" "${targets[@]}" >&2 || broken "$what: it cannot be built"
  meson test -C "$folder" --no-rebuild -t 0 --logbase "$what" "$@" "${names[@]}" >&2 || status=$?
  python3 "$source_dir/tests/totals.py" "$folder/meson-logs/$what.json" || status=1
  figures+=("$what: ${#names[@]} programs, $(python3 "$source_dir/tests/totals.py" "$folder/meson-logs/$what.json" | tail -n 1)")
  [ $status -eq 0 ] || broken "${figures[-1]}"
}

figures=()
for compiler in "${compilers[@]}"; do
  plants "$compiler" -fsanitize=address,undefined
  folder=$beside-asan-$compiler
  build_in "$folder" "$compiler" build.ninja -Db_sanitize=address,undefined "${SANITIZED[@]}" || broken "no $folder"
  run_suite "sanitizers-$compiler" "$folder" any
done
build_in "$build" "${CC:-cc}" build.ninja -Dwerror=true || broken "no $build"
plants cc "" "${memcheck[@]}"
run_suite memcheck "$build" program --wrapper "${memcheck[*]}"
echo "proof 11: held, no error in $(printf '%s; ' "${figures[@]}")each sees faults that are planted"
