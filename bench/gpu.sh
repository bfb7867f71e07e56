#!/bin/bash
# Everything that needs an NVIDIA device, unattended: builds for the device that is there, proves the kernels on it, measures.
#
#   bench/gpu.sh [build] [prove] [speed] [heads]      default: all four; each takes well under 10 minutes, and what was built is kept
#   bench/gpu.sh rehearse                             without a device: the same benches on the emulation, over a few hundred keys; times mean nothing
#
# Wants cmake, a C++ compiler and nvcc 13 (NVCC, PATH, CUDA_HOME, or .tools/cuda). Deno for the conformance suite, torch for what its
# attention does, compute-sanitizer: what is missing is said in the table, not passed over. Writes $OUT/results.jsonl and
# $OUT/results.md. native/, bench/ and, for conformance, the TypeScript sources are all that has to be uploaded: below 10 MB.
# Recorded heads are measured where $HEADS (bench/heads) has files of them: one layer of Gemma 3 over 32768 tokens is 33 MiB, made by
#   deno run -A bench/recorded_part.ts gemma3-32k.kvqk --layer 1 --out bench/heads/gemma3-32k.kvqk      (docs/recorded_heads.md)
set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=${OUT:-$ROOT/build/gpu}
HEADS=${HEADS:-$ROOT/bench/heads}
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
    kvasir_cuda_matmul_bench && host_bench
}
# What the host does alone is part of the matrix; it is written for x86.
host_bench() { [ "$(uname -m)" != x86_64 ] || outcome build-host cmake --build "$BUILD" -j "$(nproc)" --target kvasir_sampled_attention_bench; }

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

# rows NAME COMMAND...: outcome, and its JSON lines as rows; of one that was cut off, what it had done.
rows() {
  local name=$1 code=0
  outcome "$@" || code=$?
  grep '^{' "$OUT/$name.log" >> "$RESULTS"
  return $code
}
# recorded QUERIES BENCH ARGUMENT...: every file of recorded heads by the device, then by the host, whose error over the same queries is
# the one to compare with.
recorded() {
  local queries=$1 bench=$2 file name found=0
  shift 2
  for file in "$HEADS"/*.kvqk; do
    [ -f "$file" ] || continue
    found=1 name=$(basename "$file" .kvqk)
    LIMIT=90 rows "recorded-$name" "$bench" "$@" --heads "$file"
    # As many megabytes as make it eight layers, each with another query.
    on_host "recorded-$name-host" megabytes="$((2 * $(stat -c %s "$file") / 250000))" rounds=3 queries="$queries" "$file"
  done
  [ $found = 1 ] || row '{"row": "recorded heads", "missing": "files in HEADS"}'
}
# generated BENCH LENGTH ARGUMENT...: heads of an 8B model's shapes made to recorded statistics, which are too large to be carried.
generated() {
  local deno=${DENO:-$(command -v deno || echo "$ROOT/.tools/node_modules/.bin/deno")} file=$BUILD/generated-$2.kvqk
  if [ ! -x "$deno" ]; then row '{"row": "generated heads", "missing": "deno"}'; return; fi
  [ -f "$file" ] || (cd "$ROOT" && outcome "generate-$2" "$deno" run -A bench/generated.ts --tokens "$2" --dim 128 --kv-heads 8 --group 4 --seed 1 --out "$file")
  LIMIT=90 rows generated-heads "$1" "${@:3}" --heads "$file"
}
# on_host NAME ARGUMENT...: the whole cache, codes and rows, in the host's memory and searched by its cores.
on_host() {
  local name=$1
  shift
  if [ -x "$BUILD/kvasir_sampled_attention_bench" ]; then
    LIMIT=120 rows "$name" "$BUILD/kvasir_sampled_attention_bench" threads="$(nproc)" json=32 "$@"
  else
    row "{\"row\": \"$name\", \"missing\": \"the host's bench, which is for x86\"}"
  fi
}

speed() {
  local bench
  for bench in attention matmul; do
    LIMIT=240 rows "speed-$bench" "$BUILD/kvasir_cuda_${bench}_bench"
  done
  if python3 -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null; then
    LIMIT=90 rows speed-torch python3 "$ROOT/bench/gpu_sdpa.py" "$RESULTS"
  else
    row '{"row": "torch SDPA", "missing": "torch with a device"}'
  fi
}

heads() {
  # The fourth placement, beside "attention of a token" on the device; two layers take turns, so that neither is found in a cache.
  on_host all-on-host keys=131072 dim=128 group=4 kvHeads=8 megabytes=600 rounds=3
  generated "$BUILD/kvasir_cuda_attention_bench" 131072
  recorded 32 "$BUILD/kvasir_cuda_attention_bench"
}

rehearse() {
  local bench
  cmake -S "$ROOT/native" -B "$BUILD" > "$OUT/configure.log" 2>&1 || { row '{"row": "rehearse", "exit": 1}'; return 1; }
  LIMIT=1500 outcome build cmake --build "$BUILD" -j "$(nproc)" --target kvasir_cuda_attention_bench_emulated \
    kvasir_cuda_matmul_bench_emulated || return 1
  LIMIT=1500 host_bench || return 1
  for bench in attention matmul; do rows "tiny-$bench" "$BUILD/kvasir_cuda_${bench}_bench_emulated" --tiny; done
  on_host all-on-host keys=2048 dim=128 group=4 kvHeads=2 megabytes=4 rounds=1
  generated "$BUILD/kvasir_cuda_attention_bench_emulated" 1024 --tiny
  recorded 2 "$BUILD/kvasir_cuda_attention_bench_emulated" --tiny
}

# A table of all rows: what each is, and its other fields.
table() {
  printf '# %s\n\n| row | figures |\n|---|---|\n' "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo 'no device')"
  sed -E 's/^\{"row": ?"([^"]*)", ?(.*)\}$/| \1 | \2 |/; s/"//g' "$RESULTS"
}

[ $# = 0 ] && set -- build prove speed heads
for stage in "$@"; do
  case $stage in
    build) build || { say "Cannot go on: the build failed, see $OUT/build.log and $OUT/configure.log"; break; } ;;
    prove | speed | heads | rehearse) "$stage" ;;
    *) say "usage: gpu.sh [build] [prove] [speed] [heads] | rehearse"; exit 2 ;;
  esac
done
table > "$OUT/results.md"
cat "$OUT/results.md"
