# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
# Sourced by tests/run and examples/run: what they need, on Debian and its relatives.
BUILD_NEEDS=(gcc libc6-dev meson ninja-build pkg-config libblis-dev libjansson-dev librandom123-dev libxxhash-dev)
TEST_NEEDS=("${BUILD_NEEDS[@]}" g++ abigail-tools check binutils clang-format-14 cmake doxygen libblis-serial-dev make mandoc
  python3 python3-numpy libmicrohttpd-dev libsqlite3-dev chromium chromium-driver clang libclang-rt-14-dev locales valgrind
  libopenmpi-dev openmpi-bin libmpich-dev mpich)

# Installs those of the named packages that are missing, if apt-get is there and we may; else says what is missing.
install_needs() {
  local missing=() package
  command -v dpkg-query > /dev/null || return 0
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q '^install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "Not installed: ${missing[*]}. If the build fails: sudo apt-get install ${missing[*]}" >&2
    return 0
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"
}
