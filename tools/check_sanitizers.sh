#!/bin/sh
# check_sanitizers.sh [FOLDER]: the C++ tests under AddressSanitizer with UndefinedBehaviorSanitizer, and under
# ThreadSanitizer; a report fails. FUZZ_SECONDS=60 lets the fuzz harness of the C interface run that long under the first.
set -eu
cd "$(dirname "$0")/.."
root=${1:-build-sanitizers}
cmake=${CMAKE:-cmake}

# check NAME FLAGS: builds the tests with these flags and runs them.
check() {
  name=$1
  flags=$2
  echo "== $name"
  "$cmake" -S . -B "$root/$name" -DCMAKE_BUILD_TYPE=Debug -DOPTIMISERS_TESTS=ON -DOPTIMISERS_INSTALL=OFF \
    -DCMAKE_CXX_FLAGS="$flags -g1 -O1 -fno-omit-frame-pointer" >/dev/null
  "$cmake" --build "$root/$name" --parallel "${JOBS:-2}"
  "$root/$name/tests/cpp/optimisers_tests" --gtest_brief=1
}

export OPTIMISERS_NUM_THREADS=4
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
# An unaligned array is allowed everywhere but in a kernel, so alignment is checked too.
check address "-fsanitize=address,undefined -fno-sanitize-recover=all"
"$root/address/tests/cpp/optimisers_fuzz" "${FUZZ_SECONDS:-5}" "${FUZZ_SEED:-1}"
check thread "-fsanitize=thread"
echo "check_sanitizers: no report"
