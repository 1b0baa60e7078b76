"""`satfs completion`: let a shell complete commands, options and paths."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from satfs.cli.flags import verbosity_flags

SHELLS: Final = ("bash", "zsh", "fish")
#: The variable in which the shell sends a request to `main.satfs`, by click's convention.
VARIABLE: Final = "_SATFS_COMPLETE"

#: As click's own script for bash, which takes values as bash words: it would split and expand them,
#: and a name like `x;reboot` would become two commands on the line. Here each value is quoted.
_BASH: Final = """\
%(complete_func)s() {
    local response type value

    response=$(IFS=$'\\n'; env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        %(complete_var)s=bash_complete "$1")

    while IFS=',' read -r type value; do
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            printf -v value '%%q' "$value"
            COMPREPLY+=("$value")
        fi
    done <<< "$response"

    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@click.command(
    epilog="""\b
Examples:
  eval "$(satfs completion bash)"        in ~/.bashrc
  eval "$(satfs completion zsh)"         in ~/.zshrc, after compinit
  satfs completion fish > ~/.config/fish/completions/satfs.fish

\b
For everybody on this machine, as root:
  satfs completion bash > /etc/bash_completion.d/satfs
"""
)
@click.argument("shell", type=click.Choice(SHELLS))
@verbosity_flags
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes commands, options and paths of satfs.

    bash must be 4.4 or newer.
    """
    click.echo(completion_script(context.find_root().command, shell), nl=False)


def completion_script(root: click.Command, shell: str) -> str:
    """Return the script by which *shell*, one of SHELLS, completes *root*."""
    kind = get_completion_class(shell)
    assert kind is not None, "click completes in all of SHELLS"  # noqa: S101 - a bug, not a case
    # Not `kind.source()`: for bash that starts a bash to learn its version, which may be another
    # one than that of the shell that will read this.
    query = kind(root, {}, "satfs", VARIABLE)
    return (_BASH if shell == "bash" else query.source_template) % query.source_vars() + "\n"
