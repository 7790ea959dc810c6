#!/bin/sh
# apt_install.sh PACKAGE...: installs packages of Debian or Ubuntu, as root or where sudo asks no password. Fails, without
# a word, where that cannot be.
set -u
command -v apt-get >/dev/null 2>&1 || exit 1
if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root="sudo -n"
else exit 1
fi
install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
$install "$@" >/dev/null 2>&1 || { $as_root apt-get update -qq >/dev/null 2>&1 && $install "$@" >/dev/null 2>&1; }
