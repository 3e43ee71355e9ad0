#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# How many requests the service answers, and how fast: 64 connections, half of the requests rate an item and wait for
# the disk, half ask for ten recommendations.
#
#     tests/bench/service.sh BUILD [SECONDS [OPTION ...]]
#
# BUILD is a build folder with examples/service/melu-service in it, OPTIONs go to that (--movielens DIR). Needs wrk
# (Debian package wrk) and curl. The store is in $TMPDIR (/tmp): a disk, if the figures are to mean anything. Nothing
# else should run meanwhile.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 1 ] || [[ $1 == -* ]]; then
  echo "usage: service.sh BUILD [SECONDS [OPTION ...]]" >&2
  exit 2
fi
build=$1
seconds=${2:-30}
shift $(($# < 2 ? $# : 2))

folder=$(mktemp -d)
"$build/examples/service/melu-service" --data "$folder" --port 0 "$@" > "$folder/out" &
service=$!
trap 'kill $service; wait $service; rm -rf "$folder"' EXIT
until [ -s "$folder/out" ]; do # the first start trains a model
  kill -0 $service
  sleep 0.1
done
url=$(cat "$folder/out")
url=${url%/}

scale=$(curl -sS "$url/scale")
n_items=${scale##*\"n_items\":}
n_items=${n_items%%[,\}]*}
max=${scale##*\"max\":}
max=${max%%[.,]*}
# MovieLens numbers its films with gaps; the first ninety have none.
[ "$n_items" -lt 100 ] || n_items=90
wrk -t1 -c64 -d2 -s "$here/service.lua" "$url" -- "$n_items" "$max" > "$folder/warm" || { cat "$folder/warm"; exit 1; }
wrk -t1 -c64 -d"$seconds" --latency -s "$here/service.lua" "$url" -- "$n_items" "$max"
