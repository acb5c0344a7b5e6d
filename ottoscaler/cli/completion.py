"""`ottoscaler completion SHELL`: the script that a shell reads once to complete commands and flags."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the shell's name."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help='as in: eval "$(ottoscaler completion bash)"')


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["ottoscaler"], shell=args.shell))
    return 0
