#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds with Debian's musl-gcc, without a BLAS, and runs the unit tests and the golden files there. Debian has no libraries for
# musl, so jansson and Check are built from its sources. Usage: musl.sh [MESON TEST ARGUMENT...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/root.sh"
new_root musl
echo "deb-src $mirror bookworm main" > "$roots/musl/etc/apt/sources.list.d/sources.list"
add_packages musl musl-tools make dpkg-dev meson ninja-build pkg-config librandom123-dev libxxhash-dev python3
add_sources musl
in_root musl sh -ec '
  [ -d jansson-* ] || apt-get source -q jansson check > source.log 2>&1
  export CC=musl-gcc
  (cd jansson-*/ && ./configure --prefix=/root/musl --disable-shared > log && make -C src install > log 2>&1 && make install-pkgconfigDATA > log)
  (cd check-*/ && ./configure --prefix=/root/musl --disable-shared --disable-subunit > log 2>&1 && make -C lib > log 2>&1 &&
    make -C src install > log 2>&1 && make install-pkgconfigDATA > log 2>&1)
  ln -sf /usr/include/Random123 /usr/include/xxhash.h musl/include/
  rm -rf build
  CC="musl-gcc -isystem /root/musl/include" PKG_CONFIG_LIBDIR=/root/musl/lib/pkgconfig \
    meson setup build libmelu -Dblas=none -Doptimization=1 -Dtests=auto -Dexamples=false > setup.log || { cat setup.log; exit 1; }
  MELU_TEST_DIVISOR=5 CK_TIMEOUT_MULTIPLIER=20 meson test -C build --suite unit -t 20 --print-errorlogs "$@"' sh "$@"
