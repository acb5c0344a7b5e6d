"""The entry of every command: `ottoscaler` and `python -m ottoscaler`. Signals first, then all other imports."""

from ottoscaler import signals

signals.note_signals()

import errno  # noqa: E402  signals come before any other import
import io  # noqa: E402  the same
import os  # noqa: E402  the same
import sys  # noqa: E402  the same

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""How writing fails where the disk is full or the terminal is gone."""


def main() -> int:
    """Run the command line; the exit code is 0, 1 (it failed), 2 (wrong call or settings) or 130 (Ctrl-C)."""
    try:
        _hold_standard_files()
        _print_anything()
        from ottoscaler import cli

        code = cli.main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"ottoscaler: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _hold_standard_files() -> None:
    """Put /dev/null where 0, 1 or 2 are closed, so that no socket gets their number and with it what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _print_anything() -> None:
    """Let what the locale cannot write be printed escaped: a task's name in Korean must not end a command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
