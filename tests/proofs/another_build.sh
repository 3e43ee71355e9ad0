# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
# Sourced by the proofs that need several builds: build-test, or the one that MELU_BUILD names, and others beside it
# which are kept: build-clang, build-tsan, ...
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${MELU_BUILD:-$source_dir/build-test}
beside=${build%-test}

# For sanitizers: fast enough, and lines are known. Shared objects find a sanitizer's functions in the program.
SANITIZED=(-Doptimization=1 -Ddebug=true -Db_lundef=false)

# build_in FOLDER COMPILER TARGET [OPTION...]: options of meson, for the first time.
build_in() {
  local folder=$1 compiler=$2 target=$3
  shift 3
  if [ ! -f "$folder/build.ninja" ]; then
    CC=$compiler meson setup "$folder" "$source_dir" -Dtests=enabled "$@" >&2 || return
  fi
  ninja -C "$folder" "$target" >&2
}
