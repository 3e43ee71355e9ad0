#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds with Debian's musl-gcc, without a BLAS, and runs the unit tests and the golden files there. Debian has no libraries for
# musl, so jansson and Check are built from its sources. Usage: musl.sh [MESON TEST ARGUMENT...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/root.sh"
new_root musl
echo "deb-src $mirror bookworm main" > "$roots/musl/etc/apt/sources.list.d/sources.list"
add_packages musl musl-tools cmake make dpkg-dev meson ninja-build pkg-config librandom123-dev libxxhash-dev locales python3
add_sources musl
in_root musl sh -ec '
  ls -d jansson-*/ > /dev/null 2>&1 || apt-get source -q jansson check > source.log 2>&1
  for part in jansson check; do
    cmake -S $part-*/ -B build-$part -DCMAKE_C_COMPILER=musl-gcc -DCMAKE_INSTALL_PREFIX=/root/musl -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
      -DJANSSON_WITHOUT_TESTS=ON -DJANSSON_BUILD_DOCS=OFF -DJANSSON_EXAMPLES=OFF -DBUILD_TESTING=OFF -DCHECK_ENABLE_SUBUNIT=OFF \
      > $part.log 2>&1 && cmake --build build-$part --target install >> $part.log 2>&1 || { tail $part.log; exit 1; }
  done
  ln -sf libcheck.a musl/lib/libcheck_pic.a # the name that check.pc has for it
  ln -sf /usr/include/Random123 /usr/include/xxhash.h musl/include/
  rm -rf build
  CC="musl-gcc -isystem /root/musl/include" PKG_CONFIG_LIBDIR=/root/musl/lib/pkgconfig \
    meson setup build libmelu -Dblas=none -Doptimization=1 -Dtests=auto -Dexamples=false > setup.log || { cat setup.log; exit 1; }
  MELU_TEST_DIVISOR=5 CK_TIMEOUT_MULTIPLIER=20 meson test -C build --suite unit -t 20 --print-errorlogs "$@"' sh "$@"
