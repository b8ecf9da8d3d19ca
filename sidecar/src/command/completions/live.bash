
_tenure_with_names() {
    _tenure "$@"
    local name names=()
    [[ ${COMP_WORDS[COMP_CWORD]} == -* ]] && return 0
    while IFS= read -r name; do
        names+=("${name}")
    done < <({ "${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}"; } 2>/dev/null)
    [[ ${#names[@]} -gt 0 ]] && COMPREPLY=("${names[@]}")
    return 0
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _tenure_with_names -o nosort -o bashdefault -o default tenure
else
    complete -F _tenure_with_names -o bashdefault -o default tenure
fi
