#!/bin/sh
# Trains one model of a study and measures it. What is finished is left as it is; a training that
# was stopped goes on from its checkpoint.
#
#     sh figures/studies/train_and_measure.sh WORK DATA MEASURING LABEL SEED [TRAINING ...]
#
#   WORK       folder: the model goes into WORK/models, its results and its `training.json` into
#              WORK/results/LABEL-seedSEED, what the programs print into WORK/LABEL-seedSEED.log
#   DATA       as for `mtp-harness train --data`
#   MEASURING  arguments of lm_eval in one text: "--tasks mtp_solutions --log_samples"
#   LABEL      the model's name in results
#   TRAINING   further arguments of `mtp-harness train`
#
# In the environment: PYTHON, the Python that has what the project needs.
set -eu
work=$1 data=$2 measuring=$3 label=$4 seed=$5
shift 5
name=$label-seed$seed
model=$work/models/$name out=$work/results/$name log=$work/$name.log
[ ! -f "$out/training.json" ] || exit 0 # written last

mkdir -p "$model" "$work/results"
exec 3>&1 >>"$log" 2>&1
trap 'status=$?; [ $status = 0 ] || tail -n 20 "$log" >&3; echo "$name ends with status $status" >&3' EXIT
if [ ! -f "$model/config.json" ]; then
    "$PYTHON" -m mtp_harness.cli train "$model" --data "$data" --seed "$seed" "$@"
fi
rm -rf "$out" && mkdir "$out" # of a measurement that was stopped
# shellcheck disable=SC2086 # several arguments
"$PYTHON" -m mtp_harness.cli lm_eval --model mtp --model_args "pretrained=$model,label=$label" \
    -o "$out" $measuring
cp "$model/training.json" "$out/"
