"""Temporary folders of commands: removed at the end, or, where the command was killed, by the next one that starts.

A command holds a lock on the file `owner` in its folder; the kernel lets go of it however the command ends.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER = "owner"


@contextmanager
def open_folder(prefix: str) -> Iterator[Path]:
    """A new folder whose name begins with `prefix`, for as long as the block runs; stale ones like it are removed."""
    remove_stale(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / f"{OWNER}.new").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            (folder / f"{OWNER}.new").rename(folder / OWNER)  # never seen without its lock
            yield folder


def remove_stale(prefix: str) -> None:
    """Remove our folders of that name whose command is gone; others, and all without an `owner`, are left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                with (folder / OWNER).open() as owner:
                    fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # it is in use, or not one of these
