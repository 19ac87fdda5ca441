# Read by the scripts of studies, whose first argument is WORK: makes that folder, takes it off the
# arguments, goes to the checkout, and has the time that the script took written to
# WORK/results/parts when it ends. Sets `here` (this folder), `work`, PYTHON and PYTHONPATH.
#
# In the environment: PYTHON, the Python that has what the project needs (default: python3).
export PYTHON="${PYTHON:-python3}"
"$PYTHON" -c 'import sys; from importlib.util import find_spec; sys.exit(find_spec("lm_eval") is None)' || {
    echo "$PYTHON has no lm_eval: activate the environment that the project is installed in, or set PYTHON" >&2
    exit 2
}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/results/parts"
work=$(cd "$1" && pwd)
shift
cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
part=$* began=$(date +%s) gpu=${CUDA_VISIBLE_DEVICES-all}
# Of one machine: its GPUs are others than those of the same number elsewhere.
[ -f "$work/id" ] || od -An -N4 -tx4 /dev/urandom | tr -d ' ' >"$work/id"

# Makes the text of the shipped models in $1, if it is not there. In the environment:
# MTP_HARNESS_DATA, a folder with mbpp.jsonl.gz; STDLIB, the folder of the standard library of
# CPython 3.11.7, which the text must not share blocks with.
make_text() {
    [ ! -f "$1.json" ] || return 0
    "$PYTHON" examples/training_text/make.py "$1" --against "${STDLIB:?a folder, see figures/studies/begin.sh}" \
        --mbpp "${MTP_HARNESS_DATA:?a folder, see figures/studies/begin.sh}/mbpp.jsonl.gz"
}

trap 'echo "{\"part\": \"$part\", \"work\": \"$(cat "$work/id")\", \"gpu\": \"$gpu\", \"seconds\": $(($(date +%s) - began))}" >"$work/results/parts/$began-$$.json"' EXIT
