#!/bin/sh
# check_toolchains.sh [FOLDER]: library and tests with each compiler there is, in C++20 and C++23, all warnings errors.
set -eu
cd "$(dirname "$0")/.."
root=${1:-build-toolchains}
cmake=${CMAKE:-cmake}

known=
for compiler in "${CXX:-c++}" g++ clang++ clang++-14 clang++-15 clang++-16 clang++-17 clang++-18; do
  path=$(command -v "$compiler") || continue
  path=$(readlink -f "$path")
  case " $known " in *" $path "*) continue ;; esac
  known="$known $path"
  for standard in 20 23; do
    folder=$root/$(basename "$compiler")-$standard
    "$cmake" -S . -B "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_STANDARD=$standard \
      -DCMAKE_CXX_FLAGS=-Wconversion -DOPTIMISERS_WERROR=ON -DOPTIMISERS_TESTS=ON -DOPTIMISERS_SHARED=ON \
      -DOPTIMISERS_CONSUMER_TESTS=OFF >/dev/null
    "$cmake" --build "$folder" --parallel "${JOBS:-2}"
    "$folder/tests/cpp/optimisers_tests" --gtest_brief=1
    echo "$compiler, C++$standard: builds without a warning, tests pass"
  done
done
