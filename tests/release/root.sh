# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Sourced by the scripts beside it: clean Debian 12 systems in folders, made by debootstrap. They take root, some gigabytes in
# MELU_ROOTS, and a Debian mirror. What is mounted in one is seen by what runs in it alone, and is gone afterwards.
release_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for who sources this
source_dir=$(cd "$release_dir/../.." && pwd)
roots=${MELU_ROOTS:-/var/tmp/melu-roots}
mirror=${MELU_MIRROR:-http://deb.debian.org/debian}

# need PROGRAM PACKAGE: what has to be on this machine.
need() {
  command -v "$1" > /dev/null || { echo "Not installed: $1. Try: apt-get install $2" >&2; exit 1; }
}

# in_root NAME COMMAND...: as root of that system, with /proc and terminals, in its folder /root.
in_root() {
  local root=$roots/$1
  shift
  unshare --mount --pid --fork sh -c '
    mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/tmp" && mount -t devpts devpts "$0/dev/pts" &&
    cd "$0/root" && exec chroot "$0" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
      DEBIAN_FRONTEND=noninteractive sh -c "cd && exec \"\$@\"" sh "$@"' "$root" "$@"
}

# new_root NAME: Debian's base, nothing more; with MELU_REUSE set what an earlier run left.
new_root() {
  [ -z "${MELU_REUSE:-}" ] || [ ! -d "$roots/$1/root" ] || return 0
  need debootstrap debootstrap
  mkdir -p "$roots"
  if [ ! -f "$roots/base.tar" ]; then
    rm -rf "$roots/base"
    debootstrap --variant=minbase bookworm "$roots/base" "$mirror" > "$roots/base.log"
    tar -C "$roots/base" -cf "$roots/base.tar.new" . && mv "$roots/base.tar.new" "$roots/base.tar"
    rm -rf "$roots/base"
  fi
  rm -rf "${roots:?}/$1"
  mkdir "$roots/$1"
  tar -C "$roots/$1" -xpf "$roots/base.tar"
}

# add_packages NAME PACKAGE...
add_packages() {
  local name=$1
  shift
  in_root "$name" apt-get update -q > /dev/null
  in_root "$name" apt-get install -q -y --no-install-recommends "$@" > "$roots/$name.log" 2>&1 ||
    { tail "$roots/$name.log" >&2; return 1; }
}

# add_sources NAME: this tree, as git or a release has it, to /root/libmelu.
add_sources() {
  local to=$roots/$1/root/libmelu
  rm -rf "$to"
  mkdir -p "$to"
  if git -C "$source_dir" rev-parse > /dev/null 2>&1; then
    (cd "$source_dir" && git ls-files -z -co --exclude-standard | tar --null --ignore-failed-read -cf - -T -)
  else
    tar -C "$source_dir" --exclude='./build*' -cf - .
  fi | tar -C "$to" -xf -
}
