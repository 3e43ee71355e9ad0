#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a stranger does first, in Debian's base with nothing else, twice: from the first command to the printed curve, and from
# the first command to a linked program of her own that recommends. Writes the transcript to docs/first-contact.md, and fails if
# either takes more than five minutes. Usage: first_contact.sh [MINUTES]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/root.sh"
limit=$((${1:-5} * 60)) status=0
page=$source_dir/docs/first-contact.md
new_page=$(mktemp)
trap 'rm -f "$new_page" "$new_page.times"' EXIT
say() { printf '%s\n' "$@" >> "$new_page"; }

# typed LINES COMMAND: the command and the last lines of what it says, as they would be on a terminal.
typed() {
  local lines=$1 ended=0 output
  say "\$ $2"
  output=$(in_root first sh -c "cd libmelu && $2" 2>&1 | tr '\r' '\n') || ended=$?
  [ "$lines" -eq 0 ] || [ -z "$output" ] || say "$(tail -n "$lines" <<< "$output")"
  [ $ended -eq 0 ] || { echo "$2: exit status $ended"; echo "$output" | tail -20; exit 1; }
}

# begin HEADING
begin() {
  say "" "## $1" "" '```console'
  new_root first
  add_sources first
  start=$SECONDS
  times > "$new_page.times"
  before=$(cpu_seconds)
}

# What the commands so far had of the processors.
cpu_seconds() {
  awk 'NR == 2 { split($1, u, "[ms]"); split($2, s, "[ms]"); print int(u[1] * 60 + u[2] + s[1] * 60 + s[2]) }' "$new_page.times"
}

# end WHAT
end() {
  local seconds=$((SECONDS - start)) used
  times > "$new_page.times"
  used=$(($(cpu_seconds) - before))
  say '```' "" "$1: **$((seconds / 60)) min $((seconds % 60)) s**, in which these commands had $used s of a processor."
  echo "$1: $seconds s, $used s of a processor"
  [ $seconds -le $limit ] || { echo "more than $limit s"; status=1; }
}

say "# First contact" "" \
  "What a stranger types in a Debian 12 that has nothing but its base (\`debootstrap --variant=minbase\`), in a clone of this repository, as root, and what she sees." \
  "Long output is cut to its last lines. This page is written by \`tests/release/first_contact.sh\`, last on a machine with $(nproc) cores" \
  "($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)), load $(cut -d' ' -f1 /proc/loadavg) from other work when it began."

begin "The curve"
typed 48 "bash examples/run"
end "From the first command to the printed curve"

begin "A program of one's own"
typed 1 "apt-get update"
typed 1 "apt-get install -y gcc libc6-dev meson ninja-build pkg-config libblis-dev libjansson-dev librandom123-dev libxxhash-dev"
typed 1 "meson setup build -Dtests=disabled -Dexamples=false"
typed 2 "meson install -C build"
typed 0 "ldconfig"
# The program and three tables, as in the README.
sed -n '/^```c$/,/^```$/p' "$source_dir/README.md" | sed '/^```/d' > "$roots/first/root/libmelu/shop.c"
say "\$ cat > shop.c                                   # the program in README.md"
typed 0 "awk 'BEGIN { print \"user,age\"; for (u = 1; u <= 40; u++) print u \",\" u % 3 * 10 }' > users.csv"
typed 0 "awk 'BEGIN { print \"item,genre\"; for (i = 1; i <= 20; i++) print i \",\" (i % 2 ? \"Drama\" : \"Comedy|Crime\") }' > items.csv"
typed 0 "awk 'BEGIN { print \"user,item,rating\"; for (u = 1; u <= 40; u++) for (i = 1; i <= 15; i++) print u \",\" (u + i) % 20 + 1 \",\" (u * i) % 5 + 1 }' > ratings.csv"
typed 5 "cc shop.c -o shop \$(pkg-config --cflags --libs melu)"
typed 5 "./shop"
end "From the first command to a program that recommends"

cp "$new_page" "$page"
exit $status
