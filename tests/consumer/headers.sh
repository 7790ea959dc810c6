#!/bin/sh
# headers.sh INCLUDE: every public header compiles alone and without a warning, with each compiler there is, in C++20
# and C++23; the API without exceptions as well; the C header as C99.
set -eu
include=$1
warnings="-Wall -Wextra -Wconversion -Wshadow -Wpedantic -Werror"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

compilers= known=
for compiler in "${CXX:-c++}" g++ clang++ clang++-14 clang++-15 clang++-16; do
  path=$(command -v "$compiler") || continue
  path=$(readlink -f "$path")
  case " $known " in *" $path "*) continue ;; esac
  known="$known $path" compilers="$compilers $compiler"
done

eigen=$(ls -d /usr/include/eigen3 /usr/local/include/eigen3 /opt/homebrew/include/eigen3 2>/dev/null | head -n 1)
[ -n "$eigen" ] || echo "headers.sh: eigen.hpp is left out: Eigen is not installed"
for compiler in $compilers; do
  for header in "$include"/optimisers/*.hpp "$include"/optimisers/rules/*.hpp; do
    case $header in */eigen.hpp) [ -n "$eigen" ] || continue ;; esac
    printf '#include <%s>\n' "${header#"$include"/}"
  done >"$scratch/all.cpp"
  while read -r line; do
    echo "$line" >"$scratch/alone.cpp"
    "$compiler" -std=c++20 $warnings -I"$include" ${eigen:+-isystem "$eigen"} -fsyntax-only "$scratch/alone.cpp" || {
      echo "$compiler: $line" >&2
      exit 1
    }
  done <"$scratch/all.cpp"
  for standard in c++20 c++2b; do
    "$compiler" -std=$standard $warnings -I"$include" ${eigen:+-isystem "$eigen"} -fsyntax-only "$scratch/all.cpp"
    "$compiler" -std=$standard $warnings -O2 -I"$include" -c "$(dirname "$0")/cxx/main.cpp" -o "$scratch/main.o"
    "$compiler" -std=$standard $warnings -fno-exceptions -I"$include" -c "$(dirname "$0")/cxx/no_exceptions.cpp" -o "$scratch/none.o"
  done
  echo "$compiler: all headers, C++20 and C++23"
done
printf '#include <optimisers/optimisers.h>\nint main(void) { return 0; }\n' >"$scratch/alone.c"
"${CC:-cc}" -std=c99 -pedantic -Wall -Wextra -Wconversion -Werror -I"$include" -fsyntax-only "$scratch/alone.c"
