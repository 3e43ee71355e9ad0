#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Ratings larger than memory: writes a shard folder, trains from it where the process may have 1 GiB of addresses, trains on
# a share of it in memory for comparison, and judges the model by strangers whose true taste is known.
# Usage: stream.sh BUILD FOLDER [USERS (1000000)]; of 100 ratings each, about 12 bytes a rating on the disk.
set -euo pipefail
build=$1 folder=$2 users=${3:-1000000}
meson compile -C "$build" stream > /dev/null
stream=$build/tests/cluster/stream
mkdir -p "$folder/shards"
options=(--users "$users" --model "$folder/stream.melu")
limited() { (ulimit -v $((1024 * 1024)); "$stream" "$@"); }
echo "written, 1 GiB:"; limited write "$folder/shards" "${options[@]}"
du -sh "$folder/shards" | cut -f 1
echo "streamed, 1 GiB:"; limited fit "$folder/shards" "${options[@]}"
echo "a sixteenth of the files in memory, no limit:"; "$stream" memory "$folder/shards" "${options[@]}" --in-memory 16 --epochs 1
echo "strangers:"; "$stream" judge "$folder/shards" "${options[@]}"
