#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Proof 18: any number of threads makes the same bits; another compiler and other kernels make predictions that are
# close. The program (bits.c) compares. It is built by gcc and by clang, who compares with what gcc's left in a folder.
set -euo pipefail
# shellcheck source=tests/proofs/another_build.sh
. "$(dirname "${BASH_SOURCE[0]}")/another_build.sh"
program=tests/proofs/proof_bits
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

broken() {
  echo "proof 18: broken, $1"
  exit 1
}

# compare NAME BUILD [--full]: what the program of that build says of each set of kernels goes to a file.
compare() {
  local said=$folder/$1.txt
  "$2/$program" "$folder" "${@:3}" > "$said" || broken "$1: $(tail -n 1 "$said" | sed 's/^proof 18: broken, //')"
  sed "s/^/$1: /" "$said"
}

command -v clang > /dev/null || broken "there is no clang to compare with"
build_in "$build" gcc $program -Dwerror=true || broken "it cannot be built by gcc"
build_in "$beside-clang" clang $program -Dwerror=true || broken "it cannot be built by clang"
compare gcc "$build" "$@"
compare clang "$beside-clang" "$@"
figures=$(awk '
  !/^kernels/ { next }
  /cannot run/ { absent[$2]; next }
  { run[$2]; runs += $3; weights = $5 > weights ? $5 : weights; training = $11 > training ? $11 : training }
  function names(set, name, all) { for (name in set) all = all " " substr(name, 1, length(name) - 1); return all }
  END {
    print runs " runs on 2 to 16 threads with the bits of one, of gcc and clang, kernels" names(run) \
      "; predictions apart by at most " weights " with the same weights, " training " after the same training" \
      (names(absent) ? "; this machine cannot run" names(absent) : "")
  }' "$folder/gcc.txt" "$folder/clang.txt")
echo "proof 18: held, $figures"
