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
sh "$(dirname "$0")/apt_install.sh" libgtest-dev
installed && echo "GoogleTest: installed from Debian's package libgtest-dev" && exit 0
echo "GoogleTest: no package could be installed; CMake will fetch its pinned release"
