#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Installs the library into a folder of its own, and builds and runs programs against it as users do.
# Usage: check_consumers.sh BUILD_DIR SOURCE_DIR
set -eu
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
meson install -C "$build" --no-rebuild --quiet --destdir "$work/root"
libdir=$(dirname "$(dirname "$(find "$work/root" -name melu.pc)")")
export PKG_CONFIG_PATH="$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$work/root" LD_LIBRARY_PATH="$libdir"

cat > "$work/app.c" << 'APP'
#include <melu.h>
#include <stdio.h>
int main(void) {
  melu_context *ctx;
  melu_error err;
  if (melu_context_new(&ctx, NULL, &err)) return puts(err.message), 1;
  printf("%s\n", melu_build_info(ctx));
  melu_context_free(ctx);
  return 0;
}
APP
cp "$work/app.c" "$work/app.cpp"

cc "$work/app.c" -o "$work/shared" $(pkg-config --cflags --libs melu)
"$work/shared"
readelf -d "$work/shared" | grep -q 'libmelu.so.1' || { echo "shared: libmelu.so.1 is not what was linked"; exit 1; }

# With the shared library out of the way, -lmelu is libmelu.a and needs the --static line.
mkdir "$work/static"
cp "$libdir/libmelu.a" "$work/static/"
cc "$work/app.c" -o "$work/with_static" -L"$work/static" $(pkg-config --cflags melu) \
  $(pkg-config --static --libs melu | sed "s|-L$libdir||; s|-L$work/root[^ ]*||")
LD_LIBRARY_PATH= "$work/with_static"
if readelf -d "$work/with_static" | grep -q libmelu; then echo "static: libmelu.so was linked"; exit 1; fi

c++ -std=c++98 "$work/app.cpp" -o "$work/cpp" $(pkg-config --cflags --libs melu)
"$work/cpp"

cat > "$work/hpp.cpp" << 'APP'
#include <melu.hpp>
#include <cstdio>
int main() {
  const melu::context ctx;
  try {
    melu::model::load(ctx, "nowhere");
  } catch (const melu::error &e) {
    return std::puts(e.what()) < 0 || e.status() != MELU_ENOTFOUND;
  }
  return 1;
}
APP
c++ -std=c++17 "$work/hpp.cpp" -o "$work/hpp" $(pkg-config --cflags --libs melu)
"$work/hpp"

# The examples, with nothing but the installed library.
for example in quickstart movielens own_loop; do
  cc "$source/examples/$example.c" "$source"/examples/common/*.c -o "$work/$example" $(pkg-config --cflags --libs melu) -lm
done
c++ -std=c++17 -c "$source/examples/recommender.cpp" -o "$work/recommender.o" $(pkg-config --cflags melu)
for part in args bfi; do cc -c "$source/examples/common/$part.c" -o "$work/$part.o" $(pkg-config --cflags melu); done
c++ "$work/recommender.o" "$work/args.o" "$work/bfi.o" -o "$work/recommender" $(pkg-config --libs melu)
"$work/recommender" --help > /dev/null
"$work/quickstart" --help > /dev/null
"$work/movielens" --help > /dev/null

# The program in the README.
sed -n '/^```c$/,/^```$/p' "$source/README.md" | sed '/^```/d' > "$work/readme.c"
cc -std=c99 -Wall -Wextra -Werror "$work/readme.c" -o "$work/readme" $(pkg-config --cflags --libs melu)
cd "$work"
awk 'BEGIN { print "user,age"; for (u = 1; u <= 40; u++) print u "," u % 3 * 10 }' > users.csv
awk 'BEGIN { print "item,genre"; for (i = 1; i <= 20; i++) print i "," (i % 2 ? "Drama" : "Comedy|Crime") }' > items.csv
awk 'BEGIN { print "user,item,rating"; for (u = 1; u <= 40; u++) for (i = 1; i <= 15; i++) print u "," (u + i) % 20 + 1 "," (u * i) % 5 + 1 }' > ratings.csv
"$work/readme"
echo "shared, static, C++, melu.hpp, the examples and the README's program"
