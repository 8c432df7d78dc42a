"""`orchestrator completion SHELL`: a script that asks `_complete` for what may follow."""

from __future__ import annotations

import argparse

from orchestrator.cli.exits import Exit

SCRIPTS = {
    "bash": """\
_orchestrator() {
    local IFS=$'\\n' word="${COMP_LINE:0:COMP_POINT}"
    word="${word##* }"
    COMPREPLY=($(orchestrator _complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$word" 2>/dev/null))
    # bash breaks words at `=` and `:`: give it back what follows the last break
    local head="${word%"${word##*[=:]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$head"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -F _orchestrator orchestrator
""",
    "zsh": """\
#compdef orchestrator
_orchestrator() {
    local -a found
    found=(${(f)"$(orchestrator _complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    compadd -Q -S '' -- $found
}
compdef _orchestrator orchestrator
""",
    "fish": """\
function __orchestrator
    orchestrator _complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c orchestrator -f -a '(__orchestrator)'
""",
}


def run(args: argparse.Namespace) -> Exit:
    """Print the script; `eval "$(orchestrator completion bash)"` switches it on."""
    print(SCRIPTS[args.shell], end="")
    return Exit.SUCCEEDED
