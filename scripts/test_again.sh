#!/usr/bin/env bash
# Run the files in which the last `make test` saw something fail once more, alone: two at most. What passes now was left to
# chance, and is named. More files, or a second failure, is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=$(.venv/bin/python -c '
import json, pathlib
print(*sorted(json.loads(pathlib.Path(".pytest_cache/v/cache/lastfailed").read_text())), sep="\n")')
mapfile -t files < <(sed 's/::.*//' <<< "$failed" | sort -u)
if [ "${#files[@]}" -gt 2 ]; then
  echo "tests of ${#files[@]} files failed: that is no chance" >&2
  exit 1
fi
OMP_NUM_THREADS=1 .venv/bin/python -m pytest "${files[@]}"
printf 'failed first and passed alone; a defect of the test or of what it tests:\n%s\n' "$failed"
