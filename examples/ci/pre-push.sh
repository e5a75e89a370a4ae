#!/usr/bin/env bash
# A gate before a model leaves this machine: verifies the bundle if its files changed since the last pass.
#
#   ln -s ../../examples/ci/pre-push.sh .git/hooks/pre-push
#
# or in .pre-commit-config.yaml:
#
#   - repo: local
#     hooks:
#       - id: edgedistill-verify
#         name: edgedistill verify
#         entry: examples/ci/pre-push.sh
#         language: system
#         files: ^bundle/
#         pass_filenames: false
#         stages: [pre-push]
#
# EDGEDISTILL_BUNDLE, EDGEDISTILL_BASELINE and EDGEDISTILL_SUITE name the files; an undecided run (exit 3) stops the push
# unless EDGEDISTILL_INCONCLUSIVE is warn.
set -euo pipefail

bundle=${EDGEDISTILL_BUNDLE:-bundle}
baseline=${EDGEDISTILL_BASELINE:-reference.baseline}
suite=${EDGEDISTILL_SUITE:-arithmetic}
reports=${EDGEDISTILL_REPORTS:-.edgedistill-reports}

if [ ! -f "$bundle/manifest.json" ]; then
  echo "edgedistill: there is no bundle at $bundle, nothing to verify."
  exit 0
fi
if [ ! -f "$baseline" ]; then
  echo "edgedistill: there is no baseline at $baseline. Make one with: edgedistill baseline create REFERENCE -o $baseline" >&2
  exit 2
fi

# The manifest holds the hash of every file of the bundle.
state=$(cat "$bundle/manifest.json" "$baseline" | sha256sum | cut -d' ' -f1)
passed="$reports/passed"
if [ -f "$passed" ] && [ "$(cat "$passed")" = "$state $suite" ]; then
  echo "edgedistill: $bundle passed already."
  exit 0
fi

code=0
edgedistill verify "$bundle" --baseline "$baseline" --suite "$suite" --fast --out "$reports" || code=$?
case "$code" in
  0) echo "$state $suite" > "$passed" ;;
  3) echo "edgedistill: inconclusive, see $reports/report.html." >&2
     if [ "${EDGEDISTILL_INCONCLUSIVE:-fail}" = warn ]; then code=0; fi ;;
  *) echo "edgedistill: see $reports/report.html" >&2 ;;
esac
exit "$code"
