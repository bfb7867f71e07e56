#!/bin/sh
# nvcc.sh OBJECT NVCC ARGUMENTS...: compiles, and keeps what ptxas says of registers and spills in OBJECT.ptxas.
object=$1
shift
"$@" -o "$object" > "$object.ptxas" 2>&1 || { cat "$object.ptxas" >&2; exit 1; }
grep -i 'warning' "$object.ptxas" | sort -u >&2
exit 0
