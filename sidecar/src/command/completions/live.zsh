_tenure_names() {
    local -a names
    names=("${(@f)$("${_tenure_typed[1]}" __complete "${(@)_tenure_typed[2,-1]}" 2>/dev/null)}")
    if [[ -n "${names[1]}" ]]; then
        compadd -a names
    else
        _default
    fi
}

