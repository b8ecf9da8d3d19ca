#!/bin/sh
# One of the five: counts under the lock, leads once, and is in the group. `run.py` starts it; README.md says what it does.
#
# worker.sh NAME EVERYBODY ROUNDS COUNTER. A fifth argument says which part it plays under `tenure`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
name=$1 everybody=$2 rounds=$3 counter=$4
tenure=${TENURE:-tenure}
. "$here/../shell/tenure.sh"

case ${5:-} in
'')
    exec "$tenure" join fleet --id "$name" --value sh --on-lost kill -- sh "$0" "$@" member
    ;;
member)
    there=
    while [ -z "$there" ]; do
        ids=$("$tenure" members fleet -o jsonl | sed -n 's/.*"id":"\([^"]*\)".*/\1/p' | sort)
        if [ "$(printf '%s\n' "$ids" | wc -l)" -eq "$everybody" ]; then there=$ids; else sleep 0.05; fi
    done
    echo "{\"event\":\"members\",\"ids\":[\"$(printf '%s\n' "$there" | paste -sd, - | sed 's/,/","/g')\"]}"

    "$tenure" elect fleet.leader --value "$name" -- sh "$0" "$name" "$everybody" "$rounds" "$counter" lead </dev/null &
    leading=$!
    round=0
    while [ $round -lt "$rounds" ]; do
        "$tenure" lock fleet.counter --label sh -q -- sh "$0" "$name" "$everybody" "$rounds" "$counter" count </dev/null
        round=$((round + 1))
    done
    wait $leading
    echo '{"event":"done"}'
    # A member until the runner has seen all.
    cat >/dev/null
    ;;
count)
    value=$(($(cat "$counter") + 1))
    tenure_put fleet.count $value
    printf %d $value >"$counter"
    echo "{\"event\":\"count\",\"value\":$value,\"fence\":$TENURE_FENCE}"
    ;;
lead)
    tenure_put fleet.led-by "$name"
    leader=$("$tenure" elect fleet.leader --leader -o json | sed -n 's/.*"value": "\(.*\)".*/\1/p')
    [ "$leader" = "$name" ] || { echo "elected, and $leader leads" >&2; exit 1; }
    echo "{\"event\":\"leader\",\"term\":$TENURE_FENCE}"
    sleep 0.2
    ;;
esac
