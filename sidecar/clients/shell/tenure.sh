# Tenure for POSIX shells: a few functions around the command `tenure`. Source it:  . ./tenure.sh
#
# Holding something is `tenure lock`, `tenure elect` and `tenure join`, which run a command under it and stop that command
# when it is lost; see their --help. These functions are for what that command does with values.
#
# $TENURE names the command; `tenure` on the PATH unless told. $TENURE_SOCKET says where the daemon listens.

# tenure_json TEXT: TEXT as a JSON string, quotes included. Control characters other than tab and newline are not kept.
tenure_json() {
    printf '%s\n' "$1" | awk '
        { gsub(/\\/, "&&"); gsub(/"/, "\\\""); gsub(/\t/, "\\t"); gsub(/[\001-\037]/, ""); printf "%s%s", (NR > 1 ? "\\n" : "\""), $0 }
        END { printf "\"" }'
}

# tenure_call METHOD [JSON]: calls any method of the daemon; what it acquires is released when it returns.
tenure_call() {
    "${TENURE:-tenure}" rpc "$@"
}

# tenure_get KEY: prints a value and a line's end; fails with 1, and says nothing, where there is none.
tenure_get() {
    "${TENURE:-tenure}" kv get "$1" --raw --quiet && echo
}

# tenure_put KEY VALUE: writes a value. Under `tenure lock` or `tenure elect` the write passes only while that very hold
# lasts, whatever happened to it meanwhile; the store itself checks. Fails, with nothing written, once it is over: with 73.
tenure_put() {
    printf %s "$2" | "${TENURE:-tenure}" kv put "$1" - --raw ${TENURE_FENCE:+--fence} >/dev/null
}

# tenure_create KEY VALUE: as tenure_put, where the key has no value; fails with 73 where it has one.
tenure_create() {
    printf %s "$2" | "${TENURE:-tenure}" kv create "$1" - --raw ${TENURE_FENCE:+--fence} >/dev/null
}

# tenure_delete KEY: deletes a value, fenced as tenure_put is.
tenure_delete() {
    "${TENURE:-tenure}" kv del "$1" ${TENURE_FENCE:+--fence} >/dev/null
}

# tenure_keys [PREFIX]: prints the keys that have a value, one a line.
tenure_keys() {
    "${TENURE:-tenure}" kv ls "${1:-}" --raw
}
