#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# melu.h and melu.hpp alone compile in every language that they promise, without a warning.
# Usage: check_header.sh INCLUDE_DIR
set -eu
flags="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only -I$1"
for compiler in gcc clang; do
  command -v "$compiler" > /dev/null || continue
  for std in c99 c11 c17; do
    echo '#include <melu.h>' | "$compiler" -std=$std $flags -xc -
  done
  for std in c++98 c++17; do
    echo '#include <melu.h>' | "$compiler" -std=$std $flags -xc++ -
  done
  for form in -std=c++17 -std=c++20 "-std=c++17 -fno-exceptions -fno-rtti"; do
    echo '#include <melu.hpp>' | "$compiler" $form $flags -Wold-style-cast -Wnon-virtual-dtor -xc++ -
  done
  echo "$compiler: C99, C11, C17, C++98, C++17; melu.hpp: C++17, C++20, without exceptions"
done
