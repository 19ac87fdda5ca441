#!/bin/sh
# Study 4 (README.md): trains models of 6M parameters on polynomial arithmetic with n = 1, 2 and 4,
# and measures how many problems they solve.
#
#     sh figures/studies/arithmetic.sh WORK [SEED]
#     sh figures/studies/arithmetic.sh WORK --tiny        # two tiny models, anywhere, a minute
#     python figures/studies/arithmetic.py WORK/results   # the outcome
#
#   WORK  folder for the text, the models and (WORK/results) the results; give the same again to go on
#   SEED  0, 1 or 2 (default: all): the three models of a seed are trained at once
#
# The text is 4.5 million expressions (150 MB, half a minute on 16 cores). A model reads 6,000 steps of
# 24,576 bytes, 147 MB; the three of a seed take about 7 minutes on an H200, measuring included.
set -eu
. "$(dirname "$0")/begin.sh"
seeds=${1:-0 1 2}

text=$work/text size=6M
shape="--width 256 --layers 10 --attention-heads 4 --kv-heads 4 --peak-lr 0.003"
widths="1:440 2:432 4:416" # feed-forward widths: equal parameters for all n
recipe="--steps 6000 --rows 192 --context 128 --short-context 128 --log-every 250 --save-every 1000"
measuring="--tasks mtp_arithmetic --batch_size 256 --metadata {\"pause_tokens\":0}"
if [ "$seeds" = --tiny ]; then
    seeds=0 size=tiny chunks=1 widths="1:64 4:48"
    shape="--width 32 --layers 5 --attention-heads 2 --peak-lr 0.006"
    recipe="--steps 6 --rows 4 --context 128 --short-context 128 --warmup 2 --log-every 2"
    measuring="--tasks mtp_arithmetic --batch_size 20 --metadata {\"pause_tokens\":0,\"count\":2}"
fi
if [ ! -f "$text.json" ]; then
    "$PYTHON" "$here/arithmetic_text.py" "$text" --chunks "${chunks:-45}"
fi
# One training a line: label, seed, arguments of `mtp-harness train`.
for seed in $seeds; do
    for each in $widths; do
        n=${each%:*}
        echo "arithmetic-$size-n$n $seed --n $n --ffn ${each#*:} $shape $recipe"
    done
done | xargs -r -L 1 -P 3 sh "$here/train_and_measure.sh" "$work" "$text" "$measuring"
