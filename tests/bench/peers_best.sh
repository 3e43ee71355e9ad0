#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# An epoch of the preset "best" beside a meta-learned model with a closed-form inner step in PyTorch, on one core:
#
#     tests/bench/peers_best.sh DIR PEERS PROTOCOL [ROUNDS]
#
# DIR is a folder in the form of the MeLU reference code; PEERS one with ridge_meta.py and env.sh, which defines `best
# COMMAND`; PROTOCOL the folder that the script imports from. Environment as of peers.sh: BUILD, CORE, PYTHON (with PyTorch,
# NumPy and SciPy). The peer's epoch is half of what three epochs take more than one, of CPU time, on its 3,840 users; ours
# the median of bench_fit. They take turns, ROUNDS (3) times; printed are users per CPU-second and the ratio.
set -eu

case $# in 3 | 4) ;; *) echo "usage: peers_best.sh DIR PEERS PROTOCOL [ROUNDS]" >&2; exit 2 ;; esac
data=$(cd "$1" && pwd)
peers=$(cd "$2" && pwd)
PROTO=$(cd "$3" && pwd)
rounds=${4:-3}
core=${CORE:-0}
python=${PYTHON:-/usr/bin/python3}
bench=${BUILD:-build}/tests/bench/bench_fit
[ -x "$bench" ] || { echo "peers_best.sh: $bench is not there: meson compile -C build bench_fit, or set BUILD" >&2; exit 1; }
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT
export PROTO OUT PYTHONDONTWRITEBYTECODE=1 LC_ALL=C

# CPU seconds of the peer with so many epochs: its own, of its settings in the study.
peer() (
  # shellcheck source=/dev/null
  . "$peers/env.sh"
  best taskset -c "$core" "$python" - "$peers/ridge_meta.py" "$data" "$1" << 'END'
import contextlib, io, runpy, sys, time
script, data, epochs = sys.argv[1:]
sys.argv = [script, data, 'v1', 'ep=' + epochs, 'verbose=0'] + (
    'd=48 q=80 kmax=160 wid=500 wat=400 wob=5 woa=20 wy=10 wm=30 wh=30 mae=.5 nl=1 s2=1'.split())
with contextlib.redirect_stdout(io.StringIO()):
    runpy.run_path(script, run_name='__main__')
print(time.process_time())
END
)

round=1
while [ "$round" -le "$rounds" ]; do
  ours=$(taskset -c "$core" "$bench" "$data" --epochs 4 --json | sed -n 's/.*"users_per_cpu_s": \([0-9.]*\).*/\1/p')
  one=$(peer 1)
  three=$(peer 3)
  echo "$ours $one $three" | awk -v round="$round" '{
    theirs = 3840 / (($3 - $2) / 2)
    printf "round %d: libmelu %.0f, peer %.0f users per CPU-second, ratio %.2f\n", round, $1, theirs, $1 / theirs }'
  round=$((round + 1))
done
