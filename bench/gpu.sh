#!/bin/bash
# Everything that needs an NVIDIA device, unattended: builds for the device that is there, proves the kernels on it, measures.
#
#   bench/gpu.sh [build] [prove] [speed]      default: all three; each takes well under 10 minutes, and what was built is kept
#
# Wants cmake, a C++ compiler and nvcc 13 (NVCC, PATH, CUDA_HOME, or .tools/cuda). Deno for the conformance suite, torch for what its
# attention does, compute-sanitizer: what is missing is said in the table, not passed over. Writes $OUT/results.jsonl and
# $OUT/results.md. native/, bench/ and, for conformance, the TypeScript sources are all that has to be uploaded: below 10 MB.
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=${OUT:-$ROOT/build/gpu}
BUILD=${BUILD:-$ROOT/build/gpu-objects}
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
  outcome build cmake --build "$BUILD" -j "$(nproc)" --target kvasir_cuda kvasir_cuda_device_test kvasir_cuda_attention_bench \
    kvasir_cuda_matmul_bench
}

prove() {
  local deno=${DENO:-$(command -v deno || echo "$ROOT/.tools/node_modules/.bin/deno")}
  # Kernels against sums in float64, steps as graphs against launches one by one, indexes against the CPU's laws.
  outcome native-tests "$BUILD/kvasir_cuda_device_test"
  if [ -x "$deno" ]; then
    (cd "$ROOT" && KVASIR_CUDA_LIBRARY=$BUILD/libkvasir_cuda.so LIMIT=240 outcome conformance "$deno" test -A --no-check \
      test/backend_conformance_test.ts test/golden_tiny_test.ts --filter '/cuda$/')
  else
    row '{"row": "conformance", "missing": "deno"}'
  fi
  local bench
  for bench in attention matmul; do outcome "tiny-$bench" "$BUILD/kvasir_cuda_${bench}_bench" --tiny; done
  if command -v compute-sanitizer > /dev/null; then
    LIMIT=90 outcome memcheck-matmul compute-sanitizer --tool memcheck --error-exitcode 9 "$BUILD/kvasir_cuda_matmul_bench" --tiny
    local tool
    for tool in memcheck racecheck; do
      LIMIT=90 outcome "$tool-attention" compute-sanitizer --tool "$tool" --error-exitcode 9 "$BUILD/kvasir_cuda_attention_bench" --tiny
    done
  else
    row '{"row": "compute-sanitizer", "missing": "compute-sanitizer"}'
  fi
}

speed() {
  local bench
  for bench in attention matmul; do
    LIMIT=240 outcome "speed-$bench" "$BUILD/kvasir_cuda_${bench}_bench"
    grep '^{' "$OUT/speed-$bench.log" >> "$RESULTS"  # of one that was cut off, what it had done
  done
  if python3 -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
    LIMIT=90 outcome speed-torch python3 "$ROOT/bench/gpu_sdpa.py" "$RESULTS"
    grep '^{' "$OUT/speed-torch.log" >> "$RESULTS"
  else
    row '{"row": "torch SDPA", "missing": "torch with a device"}'
  fi
}

# A table of all rows: what each is, and its other fields.
table() {
  printf '# %s\n\n| row | figures |\n|---|---|\n' "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo 'no device')"
  sed -E 's/^\{"row": ?"([^"]*)", ?(.*)\}$/| \1 | \2 |/; s/"//g' "$RESULTS"
}

[ $# = 0 ] && set -- build prove speed
for stage in "$@"; do
  case $stage in
    build) build || { say "Cannot go on: the build failed, see $OUT/build.log and $OUT/configure.log"; break; } ;;
    prove | speed) "$stage" ;;
    *) say "usage: gpu.sh [build] [prove] [speed]"; exit 2 ;;
  esac
done
table > "$OUT/results.md"
cat "$OUT/results.md"
