#!/bin/sh
# Tests of the shell's part, against a daemon of its own:  sh test.sh
# $TENURED and $TENURE name the daemon and the command; what was built in this repository unless told.
set -u
here=$(cd "$(dirname "$0")" && pwd)
TENURED=${TENURED:-$here/../../../target/debug/tenured}
TENURE=${TENURE:-$here/../../../target/debug/tenure}
export TENURE
for program in "$TENURED" "$TENURE"; do
    [ -x "$program" ] || { echo "there is no $program; build it with \`cargo build -p tenure-sidecar\`" >&2; exit 1; }
done

directory=$(mktemp -d)
TENURE_SOCKET=$directory/s.sock
export TENURE_SOCKET
unset TENURE_STORE TENURE_LOCK TENURE_ELECTION TENURE_FENCE
"$TENURED" --store memory: --lease 30s --log error --socket "$TENURE_SOCKET" </dev/null &
daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon 2>/dev/null; rm -rf "$directory"' EXIT
trap 'exit 1' INT TERM

passed=0 failed=0
# check WHAT EXPECTED FOUND
check() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s: expected [%s], found [%s]\n' "$1" "$2" "$3" >&2
    fi
}

# until_true COMMAND...: for at most about 30 s.
until_true() {
    tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { echo "waited in vain: $*" >&2; exit 1; }
        sleep 0.05
    done
}

. "$here/tenure.sh"
listens() { tenure_call ping >/dev/null; }
until_true listens
# A new bucket grants nothing for one lease.
"$TENURE" lock settle --lease 500ms -- true

value='zoë "quoted" \ back	tab
second line 🔑 \n'
tenure_put shell.value "$value"
check "a value comes back" "$value" "$(tenure_get shell.value)"
dash='-' control=$(printf 'a\\033b\\001')
tenure_put shell.dash "$dash"
check "a value that is a dash comes back" "$dash" "$(tenure_get shell.dash)"
tenure_put shell.control "$control"
check "control characters come back" "$control" "$(tenure_get shell.control)"
tenure_put shell.empty ''
check "an empty value comes back" "" "$(tenure_get shell.empty)"
tenure_get shell.none >/dev/null
check "no value is a failure" 1 $?

"$TENURE" lock shell.l -- sh -c '. "$0"; tenure_put shell.fenced one' "$here/tenure.sh"
check "a write under a lock passes" one "$(tenure_get shell.fenced)"
( export TENURE_LOCK=shell.l TENURE_FENCE=1; tenure_put shell.fenced two ) 2>/dev/null
check "a write of a former holder is refused" "73 one" "$? $(tenure_get shell.fenced)"
tenure_create shell.fenced three 2>/dev/null
check "a value that is there is not created" "73 one" "$? $(tenure_get shell.fenced)"
check "keys are listed" "shell.fenced" "$(tenure_keys shell.f)"
( export TENURE_LOCK=shell.l TENURE_FENCE=1; tenure_delete shell.fenced ) 2>/dev/null
check "a former holder deletes nothing" "73 one" "$? $(tenure_get shell.fenced)"
tenure_delete shell.fenced
check "a deleted value is gone" "" "$(tenure_keys shell.f)"
"$TENURE" elect shell.e -- sh -c '. "$0"; tenure_put shell.led "$TENURE_ELECTION"' "$here/tenure.sh"
check "a write in office passes" shell.e "$(tenure_get shell.led)"

mkfifo "$directory/go"
"$TENURE" lock shell.held -- sh -c 'read -r _ <"$0"' "$directory/go" &
holder=$!
held() { tenure_call lock.get '{"name":"shell.held"}' | grep -q '"fence"'; }
until_true held
"$TENURE" lock shell.held -n -q -- true
check "a lock that somebody has is refused" 75 $?
echo >"$directory/go"
wait $holder
check "who had it ends well" 0 $?
"$TENURE" lock shell.held -n -- true
check "and then it is free" 0 $?

group=$("$TENURE" join shell.g --id one --value v -- "$TENURE" members shell.g -o jsonl | grep -c '"id":"one"')
check "a member is seen while its command runs" 1 "$group"

# The first example of the README, with a backup of ours.
sed -n '/^```sh$/,/^```$/p' "$here/README.md" | sed -e '1d' -e '/^```$/,$d' >"$directory/nightly.sh"
printf '#!/bin/sh\necho "$TENURE_LOCK $TENURE_FENCE"\n' >"$directory/backup.sh"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$TENURE" >"$directory/tenure"
chmod +x "$directory/backup.sh" "$directory/tenure"
check "the first example of the README runs its backup under a lock" nightly \
    "$(cd "$directory" && PATH=$directory:$PATH sh nightly.sh | cut -d ' ' -f 1)"

first=$(sh "$here/example.sh") second=$(sh "$here/example.sh")
check "the example counts its runs" "run 1 run 2" "${first%%,*} ${second%%,*}"
check "and its tokens grow" yes "$([ "${first##* }" -lt "${second##* }" ] && echo yes)"

printf '%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ] || exit 1
if command -v python3 >/dev/null; then
    TENURED=$TENURED python3 "$here/vectors.py"
else
    echo "skipped: the shared cases need python3 to be read"
fi
