#!/bin/sh
# ensure_clang.sh: writes the name of a clang++, installed from the system's packages if there was none; says what to
# install where that cannot be.
set -u

find_clang() {
  for name in clang++ clang++-22 clang++-21 clang++-20 clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14; do
    command -v "$name" 2>/dev/null && return 0
  done
  return 1
}

find_clang && exit 0
sh "$(dirname "$0")/apt_install.sh" clang
find_clang && exit 0
echo "ensure_clang: clang++ is not installed (14 or newer); on Debian: apt-get install clang" >&2
exit 1
