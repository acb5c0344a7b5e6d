"""The entry of every command: `ottoscaler` and `python -m ottoscaler`. Signals first, then all other imports."""

from ottoscaler import signals

signals.note_signals()

import os  # noqa: E402  signals come before any other import
import sys  # noqa: E402  the same


def main() -> int:
    """Run the command line; the exit code is 0, 1 (it failed), 2 (wrong call or settings) or 130 (Ctrl-C)."""
    try:
        _hold_standard_files()
        from ottoscaler import cli

        code = cli.main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return code


def _hold_standard_files() -> None:
    """Put /dev/null where 0, 1 or 2 are closed, so that no socket gets their number and with it what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


if __name__ == "__main__":
    sys.exit(main())
