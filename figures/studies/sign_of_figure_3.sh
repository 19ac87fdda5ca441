#!/bin/sh
# Study 3 (README.md): trains models of three sizes with n = 1, 2 and 4, and measures head 1's bits
# per byte of reference solutions.
#
#     sh figures/studies/sign_of_figure_3.sh WORK SIZE [SEED [N]]
#     sh figures/studies/sign_of_figure_3.sh WORK --tiny      # six tiny models, anywhere, two minutes
#     python figures/studies/sign_of_figure_3.py WORK/results # the outcome
#
#   WORK  folder for the text, the models and (WORK/results) the results; give the same again to go on
#   SIZE  1M (trains six models at once), 15M (three at once) or 100M (one after the other)
#   SEED  0 or 1 (default: both)
#   N     1, 2 or 4 (default: all)
#
# In the environment: MTP_HARNESS_DATA, a folder with mbpp.jsonl.gz; STDLIB, the folder of the
# standard library of CPython 3.11.7, which the text must not share blocks with.
#
# The text is that of examples/training_text (42 s on 16 cores), 98 MB of it are read by each model.
# A training takes about 1 minute at 1M and 15M, and 5 at 100M (H200); then compiling and measuring,
# 1 minute. So that no command takes ten minutes: `1M`, `15M 0`, `15M 1`, `100M 0 1`, `100M 0 2`, ...
set -eu
case ${2:-} in 1M | 15M | 100M | --tiny) ;; *) echo "no size ${2:-}; expected 1M, 15M or 100M" >&2 && exit 2 ;; esac
. "$(dirname "$0")/begin.sh"
size=$1 seeds=${2:-0 1} wanted=${3:-1 2 4}

# One training a line: label, seed, arguments of `mtp-harness train`. Equal parameters for all n.
trainings() {
    case $1 in
    1M) shape="--width 128 --layers 8 --attention-heads 2 --peak-lr 0.006" widths="1:288 2:280 4:256" ;;
    15M) shape="--width 384 --layers 12 --attention-heads 6 --kv-heads 2 --peak-lr 0.002" widths="1:720 2:712 4:704" ;;
    100M) shape="--width 768 --layers 14 --attention-heads 12 --kv-heads 2 --peak-lr 0.001" widths="1:2480 2:2472 4:2464" ;;
    *) shape="--width ${1#tiny-} --layers 5 --attention-heads 2 --peak-lr 0.006" widths="1:64 4:48" ;;
    esac
    for seed in $seeds; do
        for each in $widths; do
            n=${each%:*}
            case " $wanted " in *" $n "*) echo "bytes-$1-n$n $seed --n $n --ffn ${each#*:} $shape $recipe" ;; esac
        done
    done
}

measuring="--tasks mtp_solutions --batch_size 16 --log_samples" text=$work/text
if [ "$size" = --tiny ]; then
    sizes="tiny-16 tiny-32 tiny-64" seeds=0 at_once=2
    recipe="--steps 6 --rows 2 --context 128 --short-context 64 --warmup 2 --log-every 2"
    measuring="$measuring --metadata {\"quick\":true}"
    cat mtp_harness/data/*.py >"$text"
else
    sizes=$size recipe="--steps 1000 --save-every 250 --log-every 100"
    case $size in 1M) at_once=6 ;; 15M) at_once=3 ;; *) at_once=1 ;; esac
    make_text "$text"
fi
for one in $sizes; do trainings "$one"; done |
    xargs -r -L 1 -P "$at_once" sh "$here/train_and_measure.sh" "$work" "$text" "$measuring"
