#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Installs the library, moves what was installed to another place, and builds and runs there, with nothing else, the programs of
# tests/consumers, the examples and the README's program. Usage: check_consumers.sh BUILD_DIR SOURCE_DIR
set -eu
build=$1 source=$2
golden=$source/tests/golden/1.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$*"; exit 1; }

meson install -C "$build" --no-rebuild --quiet --destdir "$work/stage"
pc=$(find "$work/stage" -name melu.pc)
grep -q 'pcfiledir' "$pc" || fail "melu.pc cannot be moved: this build folder is older than that option, make a new one"
mkdir "$work/elsewhere"
prefix=$(meson introspect --buildoptions "$build" | python3 -c '
import json, sys
print(next(option["value"] for option in json.load(sys.stdin) if option["name"] == "prefix"))')
mv "$work/stage$prefix" "$work/elsewhere/melu"
rm -rf "$work/stage"
prefix=$work/elsewhere/melu
libdir=$(dirname "$(dirname "$(find "$prefix" -name melu.pc)")")
export PKG_CONFIG_PATH="$libdir/pkgconfig" LD_LIBRARY_PATH="$libdir" CMAKE_PREFIX_PATH="$prefix"
[ "$(pkg-config --variable=prefix melu)" -ef "$prefix" ] || fail "melu.pc says $(pkg-config --variable=prefix melu)"

# copy NAME: a folder as a user takes it, entered.
copy() {
  rm -rf "${work:?}/$1"
  cp -R "$source/tests/consumers/$1" "$work/$1"
  cd "$work/$1"
}
# needed PROGRAM: the shared libraries that it asks for.
needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }
# does COMMAND...: it must end well.
does() {
  "$@" > "$work/printed" 2> "$work/errors" || fail "$PWD: $*: exit status $?: $(cat "$work/printed" "$work/errors")"
}
# prints PATTERN COMMAND...: and a line that it prints must match.
prints() {
  pattern=$1
  shift
  does "$@"
  grep -Eq "$pattern" "$work/printed" || fail "$PWD: $*: prints $(cat "$work/printed"), not $pattern"
}
model=$golden/factors.model items=$golden/items.csv
# As tests/golden has it, so that a wrong library or file would be noticed.
digest=$(awk '/^factors.digest/ { printf "%02x", $2 }' "$golden/expected.txt")

copy make
does make -s
needed recommend | grep -qx 'libmelu.so.1' || fail "shared: libmelu.so.1 is not what was linked"
prints '^item [0-9]+: [0-9.]+$' ./recommend "$model" "$items"
cp "$work/printed" "$work/best"
make -s clean && does make -s static
if needed recommend | grep melu; then fail "static: libmelu.so was linked"; fi
prints . env LD_LIBRARY_PATH= ./recommend "$model" "$items"
cmp "$work/printed" "$work/best"
# Debian's serial BLIS alone has an archive that needs nothing more.
make -s clean && does make -s fully-static LDFLAGS="-L/usr/lib/$(cc -print-multiarch)/blis-serial"
if readelf -l recommend | grep INTERP; then fail "fully static: it wants a loader"; fi
prints . env LD_LIBRARY_PATH= ./recommend "$model" "$items"
cmp "$work/printed" "$work/best"

copy cplusplus
does make -s
prints . ./recommend "$model" "$items"
cmp "$work/printed" "$work/best"

copy cmake
does cmake -B build -DCMAKE_BUILD_TYPE=Release
does cmake --build build
prints 'a model of [0-9]+ ratings' build/train "$golden/users.csv" "$items" "$golden/ratings.csv" "$work/shop.model"
needed build/train | grep -qx 'libmelu.so.1' || fail "CMake: libmelu.so.1 is not what was linked"
sed 's/PRIVATE melu::melu)/PRIVATE melu::static)/' "$source/tests/consumers/cmake/CMakeLists.txt" > CMakeLists.txt
does cmake -B build-static && does cmake --build build-static
prints 'usage' sh -c 'LD_LIBRARY_PATH= build-static/train 2>&1 || true'
if needed build-static/train | grep melu; then fail "CMake, static: libmelu.so was linked"; fi
sed 's/find_package(melu 1.0/find_package(melu 2.0/' "$source/tests/consumers/cmake/CMakeLists.txt" > CMakeLists.txt
if cmake -B build-later > "$work/printed" 2>&1; then fail "CMake: melu 2.0 was found"; fi

copy cmake_pkgconfig
does cmake -B build
does cmake --build build
prints "^$digest\$" build/which_model "$model"

copy meson
does meson setup build
does meson compile -C build
prints '^item 103: [0-9.]+, in 80 of 100' build/predict
needed build/predict | grep -qx 'libmelu.so.1' || fail "meson: libmelu.so.1 is not what was linked"
mkdir subprojects && ln -s "$source" subprojects/libmelu
does meson setup build-sub --force-fallback-for=melu
meson introspect --targets build-sub | grep -q 'libmelu.so.1' || fail "meson: no subproject was built"
does meson compile -C build-sub
prints '^item 103: [0-9.]+, in 80 of 100' env LD_LIBRARY_PATH= build-sub/predict

copy python
prints '^item 15: [0-9.]+$' python3 score.py "$model" "$items"

copy dlopen
does make -s
if needed host | grep melu; then fail "dlopen: it was linked"; fi
prints "^$digest\$" ./host "$model"
prints '^without libmelu' env LD_LIBRARY_PATH= ./host "$model"

# The header reads as C++98 too, and the examples with nothing but the installed library.
cd "$work"
echo '#include <melu.h>
int main() { return melu_version() ? 0 : 1; }' > old.cpp
c++ -std=c++98 old.cpp -o old $(pkg-config --cflags --libs melu) && ./old
for example in quickstart movielens own_loop; do
  cc "$source/examples/$example.c" "$source"/examples/common/*.c -o "$example" $(pkg-config --cflags --libs melu) -lm
  prints . "./$example" --help
done
for part in args bfi; do cc -c "$source/examples/common/$part.c" -o "$part.o" $(pkg-config --cflags melu); done
c++ -std=c++17 "$source/examples/recommender.cpp" args.o bfi.o -o recommender $(pkg-config --cflags --libs melu)
prints . ./recommender --help

# The program in the README.
sed -n '/^```c$/,/^```$/p' "$source/README.md" | sed '/^```/d' > readme.c
cc -std=c99 -Wall -Wextra -Werror readme.c -o readme $(pkg-config --cflags --libs melu)
awk 'BEGIN { print "user,age"; for (u = 1; u <= 40; u++) print u "," u % 3 * 10 }' > users.csv
awk 'BEGIN { print "item,genre"; for (i = 1; i <= 20; i++) print i "," (i % 2 ? "Drama" : "Comedy|Crime") }' > items.csv
awk 'BEGIN { print "user,item,rating"; for (u = 1; u <= 40; u++) for (i = 1; i <= 15; i++) print u "," (u + i) % 20 + 1 "," (u * i) % 5 + 1 }' > ratings.csv
prints '^item' ./readme
echo "in $prefix: shared, static, fully static, C++, CMake, pkg-config, meson, a subproject, ctypes, dlopen, the examples, the README"
