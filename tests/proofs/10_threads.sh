#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Proof 10: threads that share models, catalogues, people and a pool do not race, and make what one thread makes. The
# program (threads.c) compares; ThreadSanitizer, Helgrind and DRD watch it. Each must first see a race that is planted.
set -euo pipefail
# shellcheck source=tests/proofs/another_build.sh
. "$(dirname "${BASH_SOURCE[0]}")/another_build.sh"
program=tests/proofs/proof_threads
log=${TMPDIR:-/tmp}/threads.log
seen=66 # the status by which a checker says that it saw something

broken() {
  echo "proof 10: broken, $1"
  exit 1
}

# status_of COMMAND...: what it says goes to the log.
status_of() {
  local status=0
  "$@" > "$log" 2>&1 || status=$?
  echo $status
}

# clean NAME SIZE COMMAND...: the program under a checker. SIZE: servers, rounds and kinds of models.
clean() {
  local name=$1 size=$2 status
  shift 2
  status=$(status_of "$@" 2 1 1 race)
  [ "$status" -eq $seen ] || broken "$name does not see a race: status $status"
  # shellcheck disable=SC2086
  status=$(status_of "$@" $size)
  [ "$status" -eq 0 ] || cat "$log" >&2
  [ "$status" -ne $seen ] || broken "$name saw something"
  [ "$status" -eq 0 ] || broken "under $name: status $status, $(tail -n 1 "$log")"
  figures+=("$name: $(sed -n 's/^proof 10: held, //p' "$log")")
}

# Servers, rounds and kinds of models: freely, with ThreadSanitizer, once with the large kind too, and with Valgrind.
if [ "${1:-}" == --full ]; then
  free="16 1000 3" sanitized="16 100 3" wide="16 3 4" slow="16 3 3"
else
  free="16 50 3" sanitized="16 4 3" wide="" slow="3 1 3"
fi
# Where addresses are too random for it, ThreadSanitizer does not start.
fixed=(setarch "$(uname -m)" -R)
"${fixed[@]}" true 2> /dev/null || fixed=()
export TSAN_OPTIONS=exitcode=$seen
figures=()

build_in "$build" "${CC:-cc}" $program -Dwerror=true || broken "it cannot be built"
build_in "$beside-tsan" "${CC:-cc}" $program -Dexamples=false -Db_sanitize=thread "${SANITIZED[@]}" ||
  broken "it cannot be built with ThreadSanitizer"
for size in "$free" ${wide:+"$wide"}; do
  # shellcheck disable=SC2086
  "$build/$program" $size || broken "not what one thread makes"
done
clean ThreadSanitizer "$sanitized" "${fixed[@]}" "$beside-tsan/$program"
[ -z "$wide" ] || clean ThreadSanitizer "$wide" "${fixed[@]}" "$beside-tsan/$program"
for tool in helgrind drd; do
  clean $tool "$slow" valgrind --tool=$tool -q --error-exitcode=$seen "$build/$program"
done
printf '%s\n' "${figures[@]}"
echo "proof 10: held, the bits of one thread; ThreadSanitizer, Helgrind and DRD see a planted race and no other;" \
  "servers, rounds, kinds of models: $free, with ThreadSanitizer $sanitized${wide:+ and $wide}, with Valgrind $slow"
