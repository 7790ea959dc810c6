#!/bin/sh
# plugins.sh COMPILER INCLUDE LIBRARY: two plugins of one process, each linked with the static library, leave each other
# alone.
set -eu
compiler=$1 include=$2 library=$3
here=$(dirname "$0")/plugins
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for factor in 2 3; do
  "$compiler" -std=c++20 -O1 -I"$include" -DFACTOR=$factor -shared -fPIC "$here/plugin.cpp" "$library" -pthread \
    -o "$scratch/plugin$factor.so"
done
exported=$(nm -D --defined-only "$scratch/plugin2.so" | awk '{print $NF}')
for symbol in optimisers_create info_of describe_own rule_registry; do
  if printf '%s\n' "$exported" | grep "$symbol"; then
    echo "plugins.sh: a plugin exports $symbol of the library in it" >&2
    exit 1
  fi
done
"$compiler" -std=c++20 "$here/host.cpp" -ldl -o "$scratch/host"
"$scratch/host" "$scratch/plugin2.so" "$scratch/plugin3.so"
echo "$compiler: two plugins with the static library in each are apart"
