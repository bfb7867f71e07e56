#!/bin/bash
# Everything that needs an NVIDIA device, unattended: builds for the device that is there, proves the kernels on it, measures.
#
#   bench/gpu.sh [build] [prove] [speed]      default: all three; each is one slot of under 10 minutes, kept in $OUT
#
# Wants cmake, a C++ compiler and nvcc 13 (NVCC, PATH, CUDA_HOME, or .tools/cuda); Deno for the conformance suite; compute-sanitizer if
# there is one. What is missing is said in the table, not passed over. Writes $OUT/results.jsonl and $OUT/results.md; the folder
# native/ and, for conformance, the TypeScript sources are all that has to be uploaded: below 10 MB.
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=${OUT:-$ROOT/build/gpu}
BUILD=$ROOT/build/gpu-objects
mkdir -p "$OUT"
RESULTS=$OUT/results.jsonl
touch "$RESULTS"

say() { printf '%s\n' "$*" >&2; }
row() { printf '%s\n' "$1" >> "$RESULTS"; }
# outcome NAME COMMAND...: runs it with a limit, keeps its output, and notes how it ended.
outcome() {
  local name=$1 code=0
  shift
  say "== $name"
  timeout "${LIMIT:-500}" "$@" > "$OUT/$name.log" 2>&1 || code=$?
  row "{\"row\": \"$name\", \"exit\": $code}"
  [ $code = 0 ] || tail -5 "$OUT/$name.log" >&2
  return $code
}
find_nvcc() {
  local folder
  for folder in "${NVCC:+$(dirname "${NVCC:-}")}" "$(dirname "$(command -v nvcc || echo /none/nvcc)")" "${CUDA_HOME:-/none}/bin" \
    /usr/local/cuda/bin "$ROOT/.tools/cuda/nvidia/cu13/bin"; do
    [ -n "$folder" ] && [ -x "$folder/nvcc" ] && printf '%s' "$folder/nvcc" && return
  done
  return 1
}

build() {
  local nvcc architecture
  nvcc=$(find_nvcc) || { row '{"row": "build", "missing": "nvcc"}'; say "There is no nvcc"; return 1; }
  architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  [ "$architecture" = 90 ] && architecture=90a
  cmake -S "$ROOT/native" -B "$BUILD" -DKVASIR_NVCC="$nvcc" -DKVASIR_CUDA_ARCHITECTURES="${architecture:-90a}" -DKVASIR_TESTS=OFF \
    > "$OUT/configure.log" 2>&1 || { row '{"row": "build", "exit": 1}'; return 1; }
  outcome build cmake --build "$BUILD" -j "$(nproc)" --target kvasir_cuda kvasir_cuda_attention_bench kvasir_cuda_matmul_bench
}

prove() {
  local deno=${DENO:-$(command -v deno || echo "$ROOT/.tools/node_modules/.bin/deno")}
  if [ -x "$deno" ]; then
    (cd "$ROOT" && KVASIR_CUDA_LIBRARY=$BUILD/libkvasir_cuda.so outcome conformance "$deno" test -A --no-check \
      test/backend_conformance_test.ts test/golden_tiny_test.ts --filter '/cuda$/')
  else
    row '{"row": "conformance", "missing": "deno"}'
  fi
  local bench
  for bench in attention matmul; do
    outcome "tiny-$bench" "$BUILD/kvasir_cuda_${bench}_bench" --tiny
    if command -v compute-sanitizer > /dev/null; then
      for tool in memcheck racecheck; do
        LIMIT=120 outcome "$tool-$bench" compute-sanitizer --tool "$tool" --error-exitcode 9 "$BUILD/kvasir_cuda_${bench}_bench" --tiny
      done
    else
      row '{"row": "compute-sanitizer", "missing": "compute-sanitizer"}'
    fi
  done
}

speed() {
  local bench
  for bench in matmul attention; do
    outcome "speed-$bench" "$BUILD/kvasir_cuda_${bench}_bench" && grep '^{' "$OUT/speed-$bench.log" >> "$RESULTS"
  done
}

# A table of all rows: what each is, and its other fields.
table() {
  printf '# %s\n\n| row | figures |\n|---|---|\n' "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo 'no device')"
  sed -E 's/^\{"row": "([^"]*)", (.*)\}$/| \1 | \2 |/; s/"//g' "$RESULTS"
}

for stage in "${@:-build}"; do
  case $stage in build | prove | speed) "$stage" ;; *) say "usage: gpu.sh [build] [prove] [speed]"; exit 2 ;; esac
done
if [ $# = 0 ]; then prove; speed; fi
table > "$OUT/results.md"
cat "$OUT/results.md"
