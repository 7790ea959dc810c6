#!/bin/sh
# check_toolchains.sh [FOLDER]: library and tests with each of COMPILERS (g++ and clang++) in each of STANDARDS (C++20 and
# C++23), all warnings errors; and whether a program's own flags change what it computes.
set -eu
cd "$(dirname "$0")/.."
root=${1:-build-toolchains}
cmake=${CMAKE:-cmake}

compilers=${COMPILERS:-"g++ $(sh tools/ensure_clang.sh)"}
for compiler in $compilers; do
  command -v "$compiler" >/dev/null || {
    echo "check_toolchains: $compiler is not installed; on Debian: apt-get install g++ clang; or name others in COMPILERS" >&2
    exit 1
  }
done
for compiler in $compilers; do
  for standard in ${STANDARDS:-20 23}; do
    folder=$root/$(basename "$compiler")-$standard
    "$cmake" -S . -B "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_STANDARD=$standard \
      -DCMAKE_CXX_FLAGS="-Wconversion -Werror" -DOPTIMISERS_CUDA=OFF -DOPTIMISERS_TESTS=ON -DOPTIMISERS_SHARED=ON \
      -DOPTIMISERS_CONSUMER_TESTS=OFF >/dev/null
    "$cmake" --build "$folder" --parallel "${JOBS:-2}"
    "$folder/tests/cpp/optimisers_tests" --gtest_brief=1
    sh tests/consumer/flags.sh "$compiler" cpp/include "$folder/cpp/liboptimisers.a"
    sh tests/consumer/plugins.sh "$compiler" cpp/include "$folder/cpp/liboptimisers.a"
    echo "$compiler, C++$standard: builds without a warning, tests pass"
  done
done
