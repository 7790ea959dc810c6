#!/bin/sh
# check_sanitizers.sh [FOLDER]: the C++ tests under ThreadSanitizer, and under AddressSanitizer with
# UndefinedBehaviorSanitizer; with the latter two also the fuzz harness of the C interface, for FUZZ_SECONDS, and, with
# PYTHON on the extension, the files of Python tests named in PYTHON_TESTS (none: left out) and the fuzz harness of the
# extension, for as long. Devices are emulated, under the same sanitizers. A report fails.
set -eu
cd "$(dirname "$0")/.."
root=$(mkdir -p "${1:-build-sanitizers}" && cd "${1:-build-sanitizers}" && pwd)
cmake=${CMAKE:-cmake}
python=${PYTHON:-python3}
jobs=${JOBS:-2}

# build NAME FLAGS OPTIONS...: the C++ tests with these flags.
build() {
  name=$1
  flags=$2
  shift 2
  echo "== $name"
  "$cmake" -S . -B "$root/$name" -DCMAKE_BUILD_TYPE=Debug -DOPTIMISERS_TESTS=ON -DOPTIMISERS_INSTALL=OFF -DOPTIMISERS_CUDA=OFF \
    -DCMAKE_CXX_FLAGS="$flags -fno-omit-frame-pointer" -DCMAKE_CXX_FLAGS_DEBUG=-g1 "$@" >/dev/null
  "$cmake" --build "$root/$name" --parallel "$jobs"
}

# at_once COMMAND...: the commands side by side; then what each of them wrote. Fails if one does.
at_once() {
  failed=0
  i=0
  running=
  for command; do
    i=$((i + 1))
    sh -c "$command" >"$root/output.$i" 2>&1 &
    running="$running $!"
  done
  i=0
  for process in $running; do
    i=$((i + 1))
    wait "$process" || failed=1
    cat "$root/output.$i"
  done
  return $failed
}

# tests NAME 0|1 [OPTION]: the command that runs one half of the C++ tests of a build.
tests() {
  echo "GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=$2 '$root/$1/tests/cpp/optimisers_tests' --gtest_brief=1 ${3:-}"
}

# runtime NAME: the file of a library of the compiler that built the extension, which must be loaded before Python.
runtime() {
  compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$root/address/CMakeCache.txt")
  file=$("$compiler" -print-file-name="$1")
  [ -e "$file" ] || { echo "check_sanitizers: $compiler has no $1; CXX=g++ chooses one that has" >&2; exit 1; }
  echo "$file"
}

export OPTIMISERS_NUM_THREADS=4
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

# Emulated devices compute on the thread that calls, so these two, which do it longest, are for the other sanitizers.
one_thread=Cuda.EveryRuleGivesTheHostsBits:Cuda.ChainsFusedAndInterpretedDo
build thread "-fsanitize=thread -O1"
at_once "$(tests thread 0 --gtest_filter=-$one_thread)" "$(tests thread 1 --gtest_filter=-$one_thread)"
# Threads of a block as threads of the host, with barriers between the phases: races within a kernel.
[ -z "${KERNEL_THREADS:-}" ] || OPTIMISERS_EMULATED_THREADS=$KERNEL_THREADS at_once \
  "$(tests thread 0 "--gtest_filter=Cuda*-$one_thread")" "$(tests thread 1 "--gtest_filter=Cuda*-$one_thread")"

# An unaligned array is allowed everywhere but in a kernel, so alignment is checked too. Nothing is optimised: what these
# two add to a program takes the compiler longest.
address="-fsanitize=address,undefined -fno-sanitize-recover=all -O0"
if [ -z "${PYTHON_TESTS:-}" ]; then
  build address "$address"
else
  build address "$address" -DOPTIMISERS_PYTHON=ON -DPython_EXECUTABLE="$(command -v "$python")"
fi
cxx0=$(tests address 0)
cxx1=$(tests address 1)
fuzz="'$root/address/tests/cpp/optimisers_fuzz' ${FUZZ_SECONDS:-5} ${FUZZ_SEED:-1}"

if [ -z "${PYTHON_TESTS:-}" ]; then
  at_once "$cxx0" "$cxx1" "$fuzz"
else
  package=$root/address/package/optimisers
  rm -rf "$package"
  mkdir -p "${package%/*}"
  cp -R python/optimisers "$package"
  cp "$root"/address/python/_core*.so "$package"
  preload="$(runtime libasan.so) $(runtime libubsan.so) $(runtime libstdc++.so.6)"
  # Python never gives back all of its memory, so leaks are looked for in C++ only. Its own allocator would hide faults;
  # pytest must not catch what a sanitizer writes before it ends the process.
  with="LD_PRELOAD='$preload' ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 PYTHONMALLOC=malloc \
PYTHONPATH='$root/address/package' PYTHONDONTWRITEBYTECODE=1 \
OPTIMISERS_CUDA_LIBRARY='$root/address/cuda/liboptimisers_cuda_emulation.so' '$python'"
  sh -c "$with -c 'import sys, optimisers._core as m; sys.exit(not m.__file__.startswith(sys.argv[1]))' '$package'"
  even=
  odd=
  for file in $PYTHON_TESTS; do  # every second file each
    swap=$even
    even="$odd $file"
    odd=$swap
  done
  run="$with -m pytest -q --capture=sys -p no:cacheprovider"
  python_fuzz="$with tests/python/fuzz.py ${FUZZ_SECONDS:-5} ${FUZZ_SEED:-1}"
  at_once "$cxx0" "$cxx1" "$run $even" "$fuzz" "$python_fuzz" ${odd:+"$run $odd"}
fi
echo "check_sanitizers: no report"
