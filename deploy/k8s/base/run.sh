#!/usr/bin/env bash
# The RayJob runs this file on the head. It is a file because KubeRay inserts the entrypoint unquoted into the shell of
# the submitter. An entrypoint `a && b` would run b in the submitter's pod.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# The configurations are mounted beside this folder.
config=$here/../configs/$GMP_ATL_CONFIG
arguments=(--config "$config" --root "$GMP_ATL_ROOT" --set "runtime.corpus=$GMP_ATL_CORPUS")
# Files of --set lines, in the order of their names. A later line overrides an earlier one.
for file in "$here"/*.set; do
    while IFS= read -r line || [[ -n $line ]]; do
        if [[ -n $line && $line != \#* ]]; then
            arguments+=(--set "$line")
        fi
    done <"$file"
done

command=run
# A file with arms is a sweep.
if grep -q '^\[\[arms\]\]' "$config"; then
    command=sweep
fi
# Finds a wrong setting or missing access to the store in seconds, before any GPU is requested. What heals by itself, such
# as nodes that still join or a store that restarts, has five minutes.
gmp-atl doctor "${arguments[@]}" --wait-s 300
# On a new cluster the run resumes from the state in the store. `exec` replaces the shell, so that SIGTERM reaches the
# run, which then saves a checkpoint.
exec gmp-atl "$command" "${arguments[@]}"
