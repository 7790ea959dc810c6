#!/bin/sh
# ensure_gtest.sh: GoogleTest from the system's packages where that is possible.
# Elsewhere CMake fetches a pinned release; the C++ tests are never left out.
set -u

installed() {
  for prefix in /usr /usr/local /opt/homebrew; do
    [ -e "$prefix/include/gtest/gtest.h" ] && return 0
  done
  return 1
}

installed && exit 0
if command -v apt-get >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ]; then as_root=
  elif sudo -n true 2>/dev/null; then as_root="sudo -n"
  else as_root=none
  fi
  if [ "$as_root" != none ]; then
    install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libgtest-dev"
    $install >/dev/null 2>&1 || { $as_root apt-get update -qq && $install >/dev/null; }
  fi
fi
installed && echo "GoogleTest: installed from Debian's package libgtest-dev" && exit 0
echo "GoogleTest: no package could be installed; CMake will fetch its pinned release"
