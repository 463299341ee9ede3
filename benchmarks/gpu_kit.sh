#!/usr/bin/env bash
# Takes this project to a machine with one GPU and no network, in pieces of at most 64 MiB.
#
#   bash benchmarks/gpu_kit.sh fetch      with a network: wheels for Python 3.12 into .kit/wheels
#   bash benchmarks/gpu_kit.sh pack       the wheels and the committed tree into .kit/pieces, with their digests
#   bash benchmarks/gpu_kit.sh list       the pieces and their sizes
#   bash benchmarks/gpu_kit.sh send DIR   copy them into a folder, one after another
#
# On the machine, with the pieces that have come so far (all at once, or one by one) in a folder:
#   bash gpu_kit.sh there DIR             once all are there: packages into $GPU_KIT_HOME/site, the tree into .../project
#   bash gpu_kit.sh run [ARGS]            the proof; results in .../project/runs/gpu
#   bash gpu_kit.sh test [ARGS]           the tests that need a GPU
#
# GPU_KIT_HOME (default ~/.gmp-atl-gpu) is kept between transfers. PYTHON is the machine's interpreter, PIP the installer.
# FAISS is the CPU build, which any machine can use; where a faiss-gpu for its CUDA is installed, leave faiss-cpu out.
set -euo pipefail
PYTHON=${PYTHON:-python3}
PIP=${PIP:-$PYTHON -m pip}
HOME_THERE=${GPU_KIT_HOME:-$HOME/.gmp-atl-gpu}
PIECE_BYTES=${GPU_KIT_PIECE_BYTES:-$((60 << 20))}
REQUIREMENTS=${GPU_KIT_REQUIREMENTS:-benchmarks/gpu_kit.txt}
KIT=.kit

fetch() {
  local platforms=() tag
  for tag in 28 27 24 17; do platforms+=(--platform "manylinux_2_${tag}_x86_64"); done
  platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
  mkdir -p "$KIT/wheels"
  $PIP download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
    -d "$KIT/wheels" -r "$REQUIREMENTS"
  # DeepSpeed has no wheel of a release. Built without its ops, so that it is the same for every Python and CUDA.
  DS_BUILD_OPS=0 DS_SKIP_CUDA_CHECK=1 $PIP wheel -q --no-deps --no-build-isolation -w "$KIT/wheels" deepspeed==0.19.8
}

pack() {
  compgen -G "$KIT/wheels/*.whl" >/dev/null || { echo "no wheels in $KIT/wheels; run: $0 fetch" >&2; exit 1; }
  rm -rf "$KIT/pieces"
  mkdir -p "$KIT/pieces"
  git archive --format=tar --output "$KIT/project.tar" HEAD
  # Wheels are compressed already.
  tar -cf - -C "$KIT" wheels project.tar | split -b "$PIECE_BYTES" -d -a 2 - "$KIT/pieces/piece."
  rm "$KIT/project.tar"
  cp "${BASH_SOURCE[0]}" "$KIT/pieces/gpu_kit.sh"
  (cd "$KIT/pieces" && sha256sum piece.* > SHA256SUMS)
  list
}

list() { du -h --apparent-size "$KIT"/pieces/*; }

send() {
  mkdir -p "$1"
  local piece
  for piece in "$KIT"/pieces/*; do cp "$piece" "$1/"; done
}

there() {
  local from=$1 keep=$HOME_THERE/pieces
  mkdir -p "$keep"
  local piece
  for piece in "$from"/piece.* "$from"/SHA256SUMS; do [ ! -f "$piece" ] || cp "$piece" "$keep/"; done
  if [ ! -f "$keep/SHA256SUMS" ]; then echo "SHA256SUMS has not come yet"; exit 0; fi
  local missing=()
  while read -r _ piece; do [ -f "$keep/$piece" ] || missing+=("$piece"); done < "$keep/SHA256SUMS"
  if [ ${#missing[@]} -gt 0 ]; then echo "still to come: ${missing[*]}"; exit 0; fi
  (cd "$keep" && sha256sum --quiet -c SHA256SUMS) || { echo "a piece is damaged; send it again" >&2; exit 1; }
  rm -rf "$HOME_THERE/unpacked" "$HOME_THERE/site" "$HOME_THERE/project"
  mkdir -p "$HOME_THERE/unpacked" "$HOME_THERE/project"
  local names=()
  while read -r _ piece; do names+=("$keep/$piece"); done < "$keep/SHA256SUMS"
  cat "${names[@]}" | tar -xf - -C "$HOME_THERE/unpacked"
  tar -xf "$HOME_THERE/unpacked/project.tar" -C "$HOME_THERE/project"
  $PIP install -q --no-index --no-deps --no-compile --no-cache-dir --target "$HOME_THERE/site" \
    "$HOME_THERE"/unpacked/wheels/*.whl
  rm -rf "$HOME_THERE/unpacked"
  echo "ready: $HOME_THERE/project"
}

in_project() {
  cd "$HOME_THERE/project"
  PYTHONPATH="$HOME_THERE/site:$PWD${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" "$@"
}

case ${1:-} in
fetch | pack | list) "$1" ;;
send | there)
  [ $# -eq 2 ] || { echo "usage: $0 $1 DIR" >&2; exit 2; }
  "$1" "$2"
  ;;
run) in_project -m benchmarks.gpu "${@:2}" ;;
test) in_project -m pytest -m gpu -n 0 "${@:2}" ;;
*)
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit 2
  ;;
esac
