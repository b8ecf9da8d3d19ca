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

# tenure_get KEY: prints a value; fails with 1, and says nothing, where there is none. For values that are text.
tenure_get() {
    _tenure_entry=$(tenure_call kv.get "{\"key\":$(tenure_json "$1")}") || return
    printf '%s\n' "$_tenure_entry" | awk '
        /^ *"value": "/ {
            text = $0; sub(/^ *"value": "/, "", text); sub(/",?$/, "", text)
            while (match(text, /\\[\\"\/bfnrt]/)) {
                what = substr(text, RSTART + 1, 1)
                what = what == "n" ? "\n" : what == "t" ? "\t" : what == "r" ? "\r" : what == "b" ? "\b" : what == "f" ? "\f" : what
                printf "%s%s", substr(text, 1, RSTART - 1), what
                text = substr(text, RSTART + 2)
            }
            print text
            found = 1
        }
        END { exit !found }'
}

# tenure_put KEY VALUE: writes a value. Under `tenure lock` or `tenure elect` the write passes only while that very hold
# lasts, whatever happened to it meanwhile; the store itself checks. Fails, with nothing written, once it is over.
tenure_put() {
    _tenure_fenced=
    if [ -n "${TENURE_FENCE:-}" ] && [ -n "${TENURE_LOCK:-}" ]; then
        _tenure_fenced=",\"lock\":$(tenure_json "$TENURE_LOCK"),\"fence\":$TENURE_FENCE"
    elif [ -n "${TENURE_FENCE:-}" ] && [ -n "${TENURE_ELECTION:-}" ]; then
        _tenure_fenced=",\"election\":$(tenure_json "$TENURE_ELECTION"),\"fence\":$TENURE_FENCE"
    fi
    tenure_call kv.put "{\"key\":$(tenure_json "$1"),\"value\":$(tenure_json "$2")$_tenure_fenced}" >/dev/null
}
