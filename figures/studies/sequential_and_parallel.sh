#!/bin/sh
# Study 2 (README.md): trains models with parallel heads, with chained modules and with one reused
# module on the same text, and measures how they draft.
#
#     sh figures/studies/sequential_and_parallel.sh WORK [WIDTH [SEED]]
#     sh figures/studies/sequential_and_parallel.sh WORK --tiny    # anywhere, two minutes
#     python figures/studies/drafts_compared.py WORK/results       # the outcome
#
#   WORK   folder for the text, the models, logs and (WORK/results) what is kept; give the same
#          again to go on: what is finished is skipped, a training goes on from its checkpoint
#   WIDTH  192 or 384 (default: both)
#   SEED   0 or 1 (default: both)
#
# In the environment: MTP_HARNESS_DATA, a folder with mbpp.jsonl.gz; STDLIB, the folder of the
# standard library of CPython 3.11.7, which the text must not share blocks with; if WORK/text.json
# is there, the text is not made again.
#
# In a call nothing is timed while models are trained and their drafts measured, several at once;
# speed (seed 0 alone) is measured afterwards, one model after the other. Calls that share a GPU must
# be stopped meanwhile.
set -eu
. "$(dirname "$0")/begin.sh"
widths=${1:-192 384} seeds=${2:-0 1}
mkdir -p "$work/models" "$work/raw" "$work/logs" "$work/results/training"
trap 'exit 1' INT TERM

steps=1000 rows=24 context=4096 text=$work/text
drafts='{"new_tokens": 256}' speed='{"batch": [1, 16], "prompt_tokens": [512], "trials": 5}'
together=64 limit=
if [ "$widths" = --tiny ]; then
    widths=64 seeds=${2:-0} steps=4 rows=2 context=256 text=README.md together=2 limit="--limit 2"
    drafts='{"quick": true, "window": 256, "new_tokens": 16}'
    speed='{"batch": 1, "prompt_tokens": 32, "new_tokens": 8, "trials": 1}'
else
    make_text "$text"
fi

# Runs a command for a model; its log is shown only if it fails.
logged() {
    log=$work/logs/$1.log
    shift
    "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2 && return 1; }
}

train() {
    name=$1-$width-$seed
    # Narrow models would wait for the compiler as long as they are trained.
    case $width in 384) eager=0 ;; *) eager=1 ;; esac
    [ -f "$work/models/$name/config.json" ] || logged "$name" env "TORCHDYNAMO_DISABLE=${TORCHDYNAMO_DISABLE-$eager}" \
        "$PYTHON" "$here/sequential_and_parallel.py" "$work/models/$name" --kind "$1" --width "$width" \
        --seed "$seed" --data "$text" --steps "$steps" --rows "$rows" --context "$context"
    cp "$work/models/$name/training.json" "$work/results/training/$name.json"
}

# measure WHAT KIND ARGUMENTS ...: runs tasks of lm_eval, and brings their results in.
measure() {
    model=$work/models/$2-$width-$seed raw=$work/raw/$1-$2-$width-$seed
    [ ! -f "$raw/done" ] || return 0
    arguments="pretrained=$model,label=$2-$width,train_tokens=$((steps * rows * context))"
    arguments="$arguments,train_step=$steps,train_seed=$seed"
    [ "$2" = parallel ] || arguments="$arguments,drafter=$model/modules"
    name=$2-$width-$seed what=$1
    shift 2
    rm -rf "$raw"
    # shellcheck disable=SC2086 # no or two arguments
    logged "$name-$what" "$PYTHON" -m mtp_harness.cli lm_eval --model mtp --model_args "$arguments$more" \
        --log_samples -o "$raw" $limit "$@"
    logged "$name-$what" "$PYTHON" figures/import_results.py "$raw" --into "$work" --gallery results
    touch "$raw/done"
}

measure_drafts() {
    more=,dtype=float32 # the text is the same for every k
    # Three models are measured at once: wider ones take fewer rows, to fit into a GPU of 140 GB.
    measure drafts "$1" --tasks mtp_heads,mtp_speculative --batch_size "$((together * 192 / width))" \
        --metadata "$drafts"
}

measure_speed() {
    more= # bfloat16
    measure speed "$1" --tasks mtp_speed --metadata "$speed"
}

# at_once FUNCTION KIND ...: all kinds side by side; waits for all, and fails if one of them did.
at_once() {
    pids='' failed=0 function=$1
    shift
    for kind; do
        "$function" "$kind" &
        pids="$pids $!"
    done
    for pid in $pids; do wait "$pid" || failed=1; done
    return $failed
}

for width in $widths; do
    for seed in $seeds; do
        # At width 384 a training may take 50 GB: three are too many for a GPU of 140 GB.
        at_once train chained reused
        at_once train parallel
        at_once measure_drafts parallel chained reused
        [ "$seed" = 0 ] || continue
        for kind in parallel chained reused; do measure_speed "$kind"; done
    done
done
