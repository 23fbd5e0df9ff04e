#!/usr/bin/env bash
# Tests drive a real Chromium (the review) and a real nginx (the sample configuration). What is absent is installed from
# Debian's packages; that needs root. Elsewhere these tests skip and say so.
set -euo pipefail
missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || missing+=(chromium)
command -v nginx >/dev/null || missing+=(nginx)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi
echo "test_programs.sh: not here, and no root with apt-get to install them: ${missing[*]}" >&2
exit 1
