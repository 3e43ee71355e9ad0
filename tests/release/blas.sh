#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The library with each BLAS of Debian's: BLIS serial, with pthreads and with OpenMP (one build, the system says which), OpenBLAS
# and the reference BLAS (-Dblas=cblas), and none. Runs the unit tests and the golden files with each.
# Usage: blas.sh [MESON TEST ARGUMENT...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/root.sh"
new_root blas
add_packages blas gcc libc6-dev meson ninja-build pkg-config librandom123-dev libxxhash-dev libjansson-dev check locales python3 \
  libblis-serial-dev libblis-pthread-dev libblis-openmp-dev libopenblas-pthread-dev libblas-dev
add_sources blas

# build NAME OPTION...
build() {
  local name=$1
  shift
  in_root blas sh -ec 'meson setup "$0" libmelu -Doptimization=1 -Dtests=auto -Dexamples=false "$@" > setup.log || { cat setup.log; exit 1; }' \
    "build-$name" "$@"
}
# check NAME WHAT: in the folder build-NAME
check() {
  local name=$1 what=$2
  shift 2
  echo "== $what"
  in_root blas sh -c 'MELU_TEST_DIVISOR=5 CK_TIMEOUT_MULTIPLIER=20 meson test -C "$0" --suite unit -t 20 "$@" > test.log 2>&1 || { tail -40 test.log; exit 1; }
    grep -E "^(Ok|Fail|Timeout):" test.log; "$0/tests/golden" check libmelu/tests/golden/1.0' "build-$name" "$@"
}

triplet=x86_64-linux-gnu
build blis -Dblas=blis
for threads in serial pthread openmp; do
  in_root blas update-alternatives --set libblis.so.4-$triplet /usr/lib/$triplet/blis-$threads/libblis.so.4
  check blis "BLIS, $threads" "$@"
done
for library in openblas-pthread blas; do
  for link in libblas.so.3 libblas.so; do
    in_root blas update-alternatives --set $link-$triplet /usr/lib/$triplet/$library/$link
  done
  [ $library = blas ] && in_root blas rm -f /usr/lib/$triplet/pkgconfig/openblas.pc # so that the plain one is found
  build $library -Dblas=cblas
  check $library "CBLAS: $library" "$@"
done
build none -Dblas=none
check none "no BLAS" "$@"
