"""`completion`: the script that lets a shell complete commands, options and values."""

from __future__ import annotations

import sys
from typing import Final

import click
from click.shell_completion import get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_COUPON_LEDGER_COMPLETE"
"""The environment variable with which the script asks; click answers in `main`."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands, options and their values in SHELL.

    On each completion the script asks `coupon-ledger`, so it stays valid when commands are added.

    \b
    coupon-ledger completion bash >> ~/.bashrc     # bash 4.4 or newer
    coupon-ledger completion zsh >> ~/.zshrc       # after compinit
    coupon-ledger completion fish > ~/.config/fish/completions/coupon-ledger.fish
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    root = click.get_current_context().find_root().command
    # Not `source()`: that runs the shell to ask for its version.
    script = shell_class(root, {}, "coupon-ledger", VARIABLE)
    sys.stdout.write(script.source_template % script.source_vars())
