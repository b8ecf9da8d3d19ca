#!/bin/sh
# Counts how often it ran, one run at a time on whatever machines share the store:  ./example.sh
#
# Needs `tenured` running, and `tenure` on the PATH or in $TENURE.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" != locked ]; then
    # 75 when somebody else has it for longer than that.
    exec "${TENURE:-tenure}" lock shell.example -w 30s --label example.sh -- sh "$here/example.sh" locked
fi

. "$here/tenure.sh"
runs=$(($(tenure_get shell.example.runs || echo 0) + 1))
tenure_put shell.example.runs "$runs"
echo "run $runs, with fencing token $TENURE_FENCE"
