#!/bin/sh
# check_symbols.sh LIBDIR [EXTENSION]: what the libraries there, and Python's extension, show to the linker is what they
# should.
# 1. Each object built for an instruction set shows one data symbol, its table, and no function, weak ones included:
#    a shared copy of an inline function compiled for AVX-512 would be called on machines without it.
# 2. The shared library of the C interface shows optimisers_* and nothing else.
# 3. The extension shows its initialisation and nothing else.
# 4. The static library is at most 3 MB (3 * 2^20 bytes) stripped, a third of it what linkers read and throw away.
set -eu
libdir=$(cd "$1" && pwd)
failed=0
for tool in nm ar strip objdump awk; do
  command -v "$tool" >/dev/null || { echo "check_symbols: $tool is not installed; on Debian: apt-get install binutils" >&2; exit 1; }
done
complain() {
  echo "check_symbols: $1" >&2
  failed=1
}

archive=$libdir/liboptimisers.a
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
nm -A --defined-only --extern-only "$archive" 2>/dev/null | grep ':kernels.cpp.o:' >"$scratch/kernels" || true
grep -q . "$scratch/kernels" || complain "no kernels.cpp.o in $archive"
leaks=$(grep -vE ' [RD] _ZN10optimisers[0-9]+v[0-9_]+3cpu[0-9]+kernels_[a-z0-9]+E$' "$scratch/kernels" | grep -vE ' V DW\.ref\.' || true)
[ -z "$leaks" ] || complain "kernels.cpp leaves more than its table behind:
$leaks"

# Outside the kernels nothing may need more than the baseline: no vector register beyond xmm.
case $(uname -m) in
x86_64 | amd64)
  mkdir "$scratch/objects"
  (cd "$scratch/objects" && ar x "$archive" && rm -f kernels.cpp.o)
  for object in "$scratch"/objects/*.o; do
    if objdump -d --no-show-raw-insn "$object" | grep -qE '%[yz]mm[0-9]'; then
      complain "$(basename "$object") uses AVX registers; only kernels_* may"
    fi
  done
  ;;
esac

for shared in "$libdir"/liboptimisers_c.so; do
  [ -e "$shared" ] || continue
  others=$(nm -D --defined-only "$shared" | awk '{print $NF}' | grep -v '^optimisers_' || true)
  [ -z "$others" ] || complain "$(basename "$shared") exports more than the C interface:
$others"
  nm -D --defined-only "$shared" | grep -q ' T optimisers_update$' || complain "$(basename "$shared") lacks optimisers_update"
done

if [ -n "${2:-}" ]; then
  shown=$(nm -D --defined-only --extern-only "$2" | awk '{print $NF}' | grep -vx 'PyInit__core' || true)
  [ -z "$shown" ] || complain "$(basename "$2") exports more than PyInit__core:
$shown"
  nm -D --defined-only "$2" | grep -q ' T PyInit__core$' || complain "$(basename "$2") lacks PyInit__core"
fi

cp "$archive" "$scratch/stripped.a"
strip --strip-unneeded "$scratch/stripped.a"
size=$(wc -c <"$scratch/stripped.a")
[ "$size" -le 3145728 ] || complain "the static library has $size bytes stripped, at most 3145728 are meant"
[ $failed = 0 ] && echo "check_symbols: kernels show their tables only; $size bytes stripped"
exit $failed
