#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds the Debian packages by the recipe in docs/packaging/debian in a clean Debian, asks lintian, installs them in another
# clean one, and builds and runs a program with them there. Usage: debian.sh [--built], which begins with the packages that
# an earlier run has built.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/root.sh"
version=$(sed -n 's/^#define MELU_VERSION_[A-Z]* //p' "$source_dir/include/melu.h" | paste -sd.)
grep -q "^libmelu ($version-" "$source_dir/docs/packaging/debian/changelog" ||
  { echo "docs/packaging/debian/changelog does not begin with $version"; exit 1; }

build() {
  new_root debian
  add_packages debian build-essential lintian
  rm -rf "$roots/debian/root/"*
  add_sources debian
  in_root debian sh -ec "
  mv libmelu libmelu-$version
  tar --sort=name -czf libmelu_$version.orig.tar.gz libmelu-$version
  cp -R libmelu-$version/docs/packaging/debian libmelu-$version/
  cd libmelu-$version && apt-get build-dep -q -y --no-install-recommends ./ > ../build-dep.log 2>&1"
  in_root debian sh -ec "cd libmelu-$version && dpkg-buildpackage -us -uc > ../build.log 2>&1 || { tail -60 ../build.log; exit 1; }"
  in_root debian sh -c "grep -A12 'Ok: ' build.log; ls -l *.deb"
  echo "lintian:"
  in_root debian sh -c "lintian --allow-root --fail-on error libmelu_$version-*.changes"
}

[ "${1:-}" = --built ] || build
new_root debian-user
mkdir "$roots/debian-user/root/debs"
cp "$roots/debian/root/"{libmelu1,libmelu-dev,melu}_*.deb "$roots/debian-user/root/debs/"
in_root debian-user apt-get update -q > /dev/null
add_packages debian-user make gcc libc6-dev pkg-config ./debs/{libmelu1,libmelu-dev,melu}_"$version"-1_amd64.deb
cp -R "$source_dir/tests/golden/1.0" "$roots/debian-user/root/golden"
in_root debian-user sh -ec '
  cp -R /usr/share/doc/libmelu-dev/examples/make .
  make -s -C make
  make/recommend golden/factors.model golden/items.csv
  melu --version
  melu inspect golden/factors.model > inspected
  head -3 inspected'
echo "libmelu $version: built, checked, installed, used"
