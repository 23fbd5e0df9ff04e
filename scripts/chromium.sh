#!/usr/bin/env bash
# The tests of the review drive a real Chromium. Where it is absent, install Debian's; that needs root.
set -euo pipefail
for name in chromium chromium-browser; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
  exit 0
fi
echo "chromium.sh: no Chromium here, and no root with apt-get to install it; its package is called chromium" >&2
exit 1
