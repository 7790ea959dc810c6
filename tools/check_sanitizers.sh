#!/bin/sh
# check_sanitizers.sh [FOLDER]: the C++ tests under ThreadSanitizer, and under AddressSanitizer with
# UndefinedBehaviorSanitizer; with the latter two also the fuzz harness of the C interface, for FUZZ_SECONDS, and the
# Python tests named in PYTEST_ARGS (none: left out) on the extension, with PYTHON. A report fails.
set -eu
cd "$(dirname "$0")/.."
root=$(mkdir -p "${1:-build-sanitizers}" && cd "${1:-build-sanitizers}" && pwd)
cmake=${CMAKE:-cmake}
python=${PYTHON:-python3}

# check NAME FLAGS OPTIONS...: the C++ tests with these flags; then runs them.
check() {
  name=$1
  flags=$2
  shift 2
  echo "== $name"
  "$cmake" -S . -B "$root/$name" -DCMAKE_BUILD_TYPE=Debug -DOPTIMISERS_TESTS=ON -DOPTIMISERS_INSTALL=OFF -DOPTIMISERS_CUDA=OFF \
    -DCMAKE_CXX_FLAGS="$flags -g1 -O1 -fno-omit-frame-pointer" "$@" >/dev/null
  "$cmake" --build "$root/$name" --parallel "${JOBS:-2}"
  "$root/$name/tests/cpp/optimisers_tests" --gtest_brief=1
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
check thread "-fsanitize=thread"

# An unaligned array is allowed everywhere but in a kernel, so alignment is checked too.
address="-fsanitize=address,undefined -fno-sanitize-recover=all"
if [ -z "${PYTEST_ARGS:-}" ]; then
  check address "$address"
else
  check address "$address" -DOPTIMISERS_PYTHON=ON -DPython_EXECUTABLE="$(command -v "$python")"
fi
"$root/address/tests/cpp/optimisers_fuzz" "${FUZZ_SECONDS:-5}" "${FUZZ_SEED:-1}"

if [ -n "${PYTEST_ARGS:-}" ]; then
  echo "== Python extension, address"
  package=$root/address/package/optimisers
  mkdir -p "$package"
  cp python/optimisers/*.py python/optimisers/*.pyi python/optimisers/py.typed "$root"/address/python/_core*.so "$package"
  preload="$(runtime libasan.so) $(runtime libubsan.so) $(runtime libstdc++.so.6)"
  # Python never gives back all of its memory, so leaks are looked for in C++ only. Its own allocator would hide faults;
  # pytest must not catch what a sanitizer writes before it ends the process.
  export LD_PRELOAD="$preload" ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" PYTHONMALLOC=malloc
  export PYTHONPATH="$root/address/package" PYTHONDONTWRITEBYTECODE=1
  "$python" -c "import sys, optimisers._core as m; sys.exit(not m.__file__.startswith(sys.argv[1]))" "$package"
  "$python" -m pytest -q --capture=sys -p no:cacheprovider $PYTEST_ARGS
  unset LD_PRELOAD
fi
echo "check_sanitizers: no report"
