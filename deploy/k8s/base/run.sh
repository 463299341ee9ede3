#!/usr/bin/env bash
# What the RayJob runs, on the head. A file rather than an entrypoint of several commands, because KubeRay puts the
# entrypoint unquoted into the submitter's own shell, where `a && b` would run b in the wrong pod.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# Mounted beside this folder.
arguments=(--config "$here/../configs/$GMP_ATL_CONFIG" --root "$GMP_ATL_ROOT" --set "runtime.corpus=$GMP_ATL_CORPUS")
# Files of --set lines, in the order of their names; a later line wins.
for file in "$here"/*.set; do
    while IFS= read -r line || [[ -n $line ]]; do
        if [[ -n $line && $line != \#* ]]; then
            arguments+=(--set "$line")
        fi
    done <"$file"
done

# A wrong setting or a store that refuses us is found in seconds, before any GPU is asked for.
gmp-atl doctor "${arguments[@]}"
# Started anew on a new cluster, it goes on where the store says that it was. The shell gives way, so that SIGTERM
# reaches the run, which saves a checkpoint.
exec gmp-atl run "${arguments[@]}"
