#!/bin/sh
# flags.sh COMPILER INCLUDE LIBRARY: a program compiled with flags of its own computes the library's bits, or says why it
# does not. -march=native is where compilers join products and sums, on x86-64; on arm64 they do everywhere.
set -eu
compiler=$1 include=$2 library=$3
source=$(dirname "$0")/flags/main.cpp
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

make() { "$compiler" -std=c++20 -I"$include" "$@" "$source" "$library" -pthread -o "$scratch/program"; }
fail() {
  echo "flags.sh: $compiler $1" >&2
  exit 1
}

make -O2 -ffp-contract=off
bits=$("$scratch/program")
for flags in "-O0 -march=native" "-O2 -march=native" "-O3 -march=native" "-O2 -march=native -std=gnu++20 -fno-rtti" \
  "-O2 -ffast-math -fno-fast-math -march=native" "-Ofast -fno-fast-math" "-O3 -march=native -ffp-contract=fast"; do
  make $flags || fail "$flags does not compile"
  if got=$("$scratch/program"); then
    [ "$got" = "$bits" ] || fail "$flags: other bits: $got, expected $bits"
  else # what a flag of clang does to all that it reads
    case "$flags: $got" in *contract=fast:\ refused:*-ffp-contract=off*) ;; *) fail "$flags: $got" ;; esac
  fi
done
for flags in -ffast-math -ffinite-math-only -fassociative-math\ -fno-signed-zeros\ -fno-trapping-math; do
  if make -O2 $flags 2>"$scratch/errors"; then
    [ "$flags" != -ffast-math ] && [ "$("$scratch/program" || true)" = "$bits" ] || fail "$flags compiles"
  else
    grep -q 'compile the file with -fno-fast-math' "$scratch/errors" || fail "$flags: $(head -n 3 "$scratch/errors")"
  fi
  make -O2 $flags -DLIBRARY_ONLY
  [ "$("$scratch/program")" = "${bits%% *}" ] || fail "$flags changes what the library computes"
done
echo "$compiler: the bits do not depend on a program's flags"
