
function __fish_tenure_names
    set -l typed (commandline -opc) (commandline -ct)
    $typed[1] __complete $typed[2..-1] 2>/dev/null
end

complete -c tenure -k -a '(__fish_tenure_names)'
