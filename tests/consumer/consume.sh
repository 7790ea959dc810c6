#!/bin/sh
# consume.sh WAY: takes the library into another project in that way, builds it and runs it. Called by ctest with
# SOURCE (the source tree), WORK (a folder to work in), CMAKE and CXX in the environment.
set -eu
here=$SOURCE/tests/consumer
prefix=$WORK/prefix
way=$1
mkdir -p "$WORK"

# build FOLDER ARGUMENTS...: configures that project, builds it and runs what it made.
build() {
  project=$1
  shift
  "$CMAKE" -S "$here/$project" -B "$WORK/$way" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$CXX" "$@" >/dev/null
  "$CMAKE" --build "$WORK/$way" --parallel 2
  "$WORK/$way/consumer"
}

case $way in
install)
  rm -rf "$WORK"
  "$CMAKE" -S "$SOURCE" -B "$WORK/library" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$CXX" \
    -DOPTIMISERS_SHARED=ON -DCMAKE_INSTALL_PREFIX="$WORK/first" -DCMAKE_INSTALL_LIBDIR=lib >/dev/null
  "$CMAKE" --build "$WORK/library" --parallel 2
  "$CMAKE" --install "$WORK/library" >/dev/null
  mv "$WORK/first" "$prefix" # an installed tree may be moved
  sh "$SOURCE/tools/check_symbols.sh" "$prefix/lib"
  ;;
find_package) build cxx -DCMAKE_PREFIX_PATH="$prefix" ;;
add_subdirectory) build cxx -DWAY=add_subdirectory -DOPTIMISERS_SOURCE="$SOURCE" ;;
fetch_content) build cxx -DWAY=fetch_content -DOPTIMISERS_SOURCE="$SOURCE" ;;
pkg_config)
  command -v pkg-config >/dev/null || { echo "pkg-config is not installed"; exit 77; }
  export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
  flags=$(pkg-config --cflags --libs optimisers)
  "$CXX" -std=c++20 -O3 "$here"/cxx/*.cpp $flags -o "$WORK/pkg_config"
  "$WORK/pkg_config"
  ;;
c_shared)
  build c -DCMAKE_PREFIX_PATH="$prefix"
  if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
    "${CC:-cc}" -std=c99 -Wall -Wextra -pedantic -Werror "$here/c/main.c" $(pkg-config --cflags --libs optimisers_c) \
      -Wl,-rpath,"$prefix/lib" -lm -o "$WORK/c_pkg_config"
    "$WORK/c_pkg_config"
  fi
  ;;
c_static) # a program that knows nothing of C++
  build c -DCMAKE_PREFIX_PATH="$prefix" -DTARGET=optimisers::optimisers
  if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
    "${CC:-cc}" -std=c99 -Wall -Wextra -pedantic -Werror "$here/c/main.c" $(pkg-config --cflags --libs --static optimisers) \
      -o "$WORK/c_static_pkg_config"
    "$WORK/c_static_pkg_config"
  fi
  ;;
eigen)
  eigen=$(ls -d /usr/include/eigen3 /usr/local/include/eigen3 /opt/homebrew/include/eigen3 2>/dev/null | head -n 1)
  [ -n "$eigen" ] || { echo "Eigen is not installed; on Debian: apt-get install libeigen3-dev"; exit 77; }
  "$CXX" -std=c++20 -O1 -Wall -Wextra -I"$prefix/include" -isystem "$eigen" "$here/eigen/main.cpp" "$prefix/lib/liboptimisers.a" \
    -pthread -o "$WORK/eigen"
  "$WORK/eigen"
  ;;
fast_math) # for a whole project
  "$CXX" -std=c++20 -O2 -ffp-contract=off -I"$prefix/include" "$here/flags/main.cpp" "$prefix/lib/liboptimisers.a" -pthread \
    -o "$WORK/plain"
  build flags -DOPTIMISERS_SOURCE="$SOURCE" -DCMAKE_CXX_FLAGS="-ffast-math -fno-exceptions"
  [ "$("$WORK/fast_math/consumer")" = "$("$WORK/plain")" ] || { echo "other bits under -ffast-math"; exit 1; }
  ;;
small) # one rule, with threads and without
  for threads in ON OFF; do
    way=small_$threads
    build small -DOPTIMISERS_SOURCE="$SOURCE" -DTHREADS=$threads
    added=$(($(wc -c <"$WORK/$way/consumer") - $(wc -c <"$WORK/$way/nothing")))
    echo "one rule adds $added bytes (threads $threads)"
    [ "$added" -le 307200 ] || { echo "at most 307200 are meant"; exit 1; }
  done
  ;;
ctypes)
  command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }
  library=$(ls "$prefix"/lib/liboptimisers_c.so "$prefix"/lib/liboptimisers_c.dylib 2>/dev/null | head -n 1)
  python3 "$here/ctypes/main.py" "$library"
  ;;
guide)
  command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }
  python3 "$here/guide.py" "$SOURCE" "$WORK/guide" "$CMAKE" "$CXX"
  ;;
own_kernel) # the loop of a program's own rule: vectorised, without a call
  command -v objdump >/dev/null || { echo "objdump is not installed"; exit 77; }
  "$CXX" -std=c++20 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off -I"$prefix/include" -c "$here/cxx/main.cpp" -o "$WORK/own.o"
  objdump -dC --no-show-raw-insn "$WORK/own.o" |
    awk '/^[0-9a-f]+ <.*stage_kernel<(true|false), float, .*SignMomentum, 1>/ { p = 1 } /^$/ { p = 0 } p' >"$WORK/own.s"
  grep -q . "$WORK/own.s" || { echo "no kernel of SignMomentum found"; exit 1; }
  if grep -E '[[:space:]](call|callq|bl|blr)[[:space:]]' "$WORK/own.s"; then
    echo "the kernel of a program's own rule calls a function"
    exit 1
  fi
  case $(uname -m) in x86_64 | amd64) grep -qE 'mulps' "$WORK/own.s" || { echo "it is not vectorised"; exit 1; } ;; esac
  ;;
cuda) # an install of its own, with the kernels for one architecture
  command -v nvcc >/dev/null || { echo "nvcc is not installed"; exit 77; }
  "$CMAKE" -S "$SOURCE" -B "$WORK/cuda_library" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$CXX" \
    -DOPTIMISERS_CUDA=ON -DOPTIMISERS_CUDA_ARCHITECTURES=90-real -DCMAKE_INSTALL_PREFIX="$WORK/cuda_prefix" \
    -DCMAKE_INSTALL_LIBDIR=lib >/dev/null
  "$CMAKE" --build "$WORK/cuda_library" --parallel 2
  "$CMAKE" --install "$WORK/cuda_library" >/dev/null
  build cuda -DCMAKE_PREFIX_PATH="$WORK/cuda_prefix"
  ;;
flags) sh "$here/flags.sh" "$CXX" "$prefix/include" "$prefix/lib/liboptimisers.a" ;;
plugins)
  [ "$(uname -s)" = Linux ] || { echo "plugins are loaded on Linux only"; exit 77; }
  sh "$here/plugins.sh" "$CXX" "$prefix/include" "$prefix/lib/liboptimisers.a"
  ;;
headers) sh "$here/headers.sh" "$prefix/include" ;;
*)
  echo "consume.sh: unknown way \"$way\"" >&2
  exit 2
  ;;
esac
echo "$way: ok"
