"""A small disk of its own, where mounting is allowed."""

import contextlib
import subprocess


class NoMount(Exception):
    """Why no disk can be mounted here."""


@contextlib.contextmanager
def small_disk(folder, kib):
    """A tmpfs of so many KiB at a folder; yields a function that gives it another size.

    Raises:
        NoMount: mounting is not allowed.
    """
    def mount(*options):
        try:
            done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)],
                                  capture_output=True, text=True, check=False)
        except OSError as error:
            raise NoMount(f"mount: {error}") from error
        if done.returncode:
            raise NoMount(done.stderr.strip())

    folder.mkdir(parents=True, exist_ok=True)
    mount("-o", f"size={kib}k")
    try:
        yield lambda kib: mount("-o", f"remount,size={kib}k")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
