# Read by the scripts of studies, whose first argument is WORK: makes that folder, takes it off the
# arguments, goes to the checkout, and has the time that the script took written to
# WORK/results/parts when it ends. Sets `here` (this folder), `work` and PYTHONPATH.
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/results/parts"
work=$(cd "$1" && pwd)
shift
cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
part=$* began=$(date +%s)
trap 'echo "{\"part\": \"$part\", \"seconds\": $(($(date +%s) - began))}" >"$work/results/parts/$began.json"' EXIT
