#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Training on MovieLens-1M beside PyTorch, tasks per CPU-second on one core:
#
#     tests/bench/peers.sh DIR PEERS [ROUNDS]
#
# DIR is a folder in the form of the MeLU reference code; PEERS one with peer_torch.py, mldata.py and env.sh, which
# defines `best COMMAND`. Environment: BUILD, the build folder with bench_movielens (build); CORE, the core that all is
# pinned to (0); PYTHON, one that has PyTorch (/usr/bin/python3, as Debian's packages install for).
#
# `hand` is the meta-gradient written out, `naive` is autograd task by task. libmelu makes its batches anew all the time;
# PyTorch's are made once, and what that takes is known to it: printed are ratios to PyTorch with it (everything
# included) and without (its training alone). They take turns, ROUNDS (5) times; printed are medians, and of the ratios
# the median of the rounds' own, since a machine may be slower in one round than in the next.
set -eu

fail() {
  echo "peers.sh: $*" >&2
  exit 1
}

usage() {
  echo "usage: peers.sh DIR PEERS [ROUNDS]" >&2
  exit 2
}

case $# in 2 | 3) ;; *) usage ;; esac
rounds=${3:-5}
case $rounds in *[!0-9]* | '' | 0*) usage ;; esac
build=${BUILD:-build}
core=${CORE:-0}
python=${PYTHON:-/usr/bin/python3}
bench=$build/tests/bench/bench_movielens

[ -f "$1/warm_state.json" ] || fail "$1 has no warm_state.json: not a folder of the MeLU reference code"
for file in peer_torch.py mldata.py env.sh; do
  [ -f "$2/$file" ] || fail "$2 has no $file"
done
[ -x "$bench" ] || fail "$bench is not there: meson compile -C $build bench_movielens, or set BUILD"
command -v taskset > /dev/null || fail "taskset (util-linux) is not there"
command -v "$python" > /dev/null || fail "$python is not there: set PYTHON"
ML1M=$(cd "$1" && pwd)
peers=$(cd "$2" && pwd)
export ML1M PYTHONDONTWRITEBYTECODE=1 LC_ALL=C

# Runs Python with the peers' settings, in a shell of its own: they are for PyTorch alone.
torch() (
  # shellcheck source=/dev/null
  . "$peers/env.sh"
  best taskset -c "$core" "$python" "$@"
)

torch -c 'import numpy, torch' 2> /dev/null ||
  fail "$python has no PyTorch or NumPy: install python3-torch and python3-numpy, or set PYTHON"

run_melu() {
  taskset -c "$core" "$bench" "$ML1M" --threads 1 --seconds 1 --json |
    sed -n 's/.*"tasks_per_cpu_s": \([0-9.]*\).*/\1/p'
}

# run_torch VARIANT PASSES, each over all users: its rate, and its rate with the making of batches
run_torch() {
  torch "$peers/peer_torch.py" --v "$1" --state warm_state --threads 1 --runs "$2" |
    sed -n 's/.*per cpu-second \([0-9.]*\).*with batch building \([0-9.]*\).*/\1 \2/p'
}

figures=
round=1
while [ "$round" -le "$rounds" ]; do
  melu=$(run_melu)
  hand=$(run_torch hand 3)
  naive=$(run_torch naive 1)
  if [ -z "$melu" ] || [ -z "$hand" ] || [ -z "$naive" ]; then fail "round $round gave no figure"; fi
  echo "round $round: libmelu $melu, hand $hand, naive $naive tasks per CPU-second (PyTorch: training; with batches)"
  figures="$figures$melu $hand $naive
"
  round=$((round + 1))
done

# median EXPRESSION, in awk's words, of a round's figures: $1 libmelu, $2 hand, $3 with batches, $4 naive, $5 with batches
median() {
  printf '%s' "$figures" | awk "{ print $1 }" | sort -g | awk '
    { x[NR] = $1 }
    END { print (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'
}

echo
# shellcheck disable=SC2016 # the dollars are awk's
{
  printf '%-32s %8.0f tasks per CPU-second\n' libmelu "$(median '$1')" hand "$(median '$2')" \
    "hand, with batches" "$(median '$3')" naive "$(median '$4')" "naive, with batches" "$(median '$5')"
  printf '%-32s %8.2f\n' "libmelu / hand, all included" "$(median '$1 / $3')" "libmelu / hand" "$(median '$1 / $2')" \
    "libmelu / naive, all included" "$(median '$1 / $5')" "libmelu / naive" "$(median '$1 / $4')"
}
