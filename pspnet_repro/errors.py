"""The errors that commands report in one line, and the screen that they report to."""

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from pspnet_repro.glibc import keep_freed_memory


class UserError(Exception):
    """A mistake in files, data or settings: the message names the thing, its value and the rule."""


class UsageError(UserError):
    """A mistake in the arguments themselves: commands end with exit code 2."""


class FailedElsewhere(UserError):
    """The first process met a UserError, which it reports itself."""


class OtherProcess(UsageError):
    """This process does what no others can join: they may do something else, and say nothing."""


class Interrupted(Exception):
    """A signal stopped the work after its state was saved."""


SPIN_COUNT = "10000"  # turns of a loop, some 10 microseconds
# What commands catch for `report`.
REPORTED = (UserError, MemoryError, OSError, RuntimeError)


def first_line(error: Exception) -> str:
    """What an exception says, without the lines that torch and numpy add; of the system's errors
    the words alone, without number and path, as messages name the path themselves."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]


def printable(text: str, limit: int = 2000) -> str:
    """Text from files and names for a terminal: control characters escaped, cut to `limit`."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[:limit // 2]} ... {text[-limit // 2:]}"


def command(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate the main function of a program: its errors become a line and an exit code, and its
    work goes on when its screen cannot.

    While it runs, sys.stdout and sys.stderr drop for good what they cannot write (the reader is
    gone, the disk is full, the stream was closed). A command whose result is what it prints ends
    with `check_printed`.
    """
    @functools.wraps(main)
    def run(*args):
        # For a torch that is imported from here on, and for processes that are started: OpenMP's
        # threads wait for each other by spinning for milliseconds. Where another program needs the
        # core, a training took six times as long.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        keep_freed_memory()
        # Ctrl-C is a KeyboardInterrupt again, where it would end the process.
        with _screen(), _handler_within(signal.default_int_handler, stop_at_once):
            try:
                return main(*args)
            except OtherProcess as error:
                if os.environ.get("RANK", "0") != "0":
                    time.sleep(1)  # where the first does the same, torchrun ends this one by then
                return report(error)
            except (UsageError, FailedElsewhere) as error:
                # All processes of torchrun end with these.
                say(_lines(error))
                return 2 if isinstance(error, UsageError) else 1
            except REPORTED as error:
                return report(error)
            except (Interrupted, KeyboardInterrupt) as stop:
                say(f"\n{stop}" if str(stop) else "\nstopped")
                return 130

    return run


def stop_at_once(*_: object) -> None:
    """A handler of SIGINT that ends the process with a word, whatever it imports."""
    with contextlib.suppress(OSError, ValueError):
        say("\nstopped")
        sys.stderr.flush()
    os._exit(130)


def stop_on_interrupt() -> None:
    """Let Ctrl-C end this process with a word from here on, but in the functions of `command`."""
    signal.signal(signal.SIGINT, stop_at_once)


@contextlib.contextmanager
def _handler_within(within, around):
    """A block in which Ctrl-C has the handler `within`, where it has the handler `around`."""
    changes = (threading.current_thread() is threading.main_thread()
               and signal.getsignal(signal.SIGINT) is around)
    if changes:
        signal.signal(signal.SIGINT, within)
    try:
        yield
    finally:
        if changes:
            signal.signal(signal.SIGINT, around)


def imports() -> contextlib.AbstractContextManager[None]:
    """A block of slow imports, in which Ctrl-C ends the process at once: torch's modules answer
    KeyboardInterrupt with errors of their own."""
    return _handler_within(stop_at_once, signal.default_int_handler)


def say(text: str) -> None:
    """Print to stderr what all processes end with: once, by the first that torchrun started."""
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "")
    # A number that none of the processes has is nobody else's to speak for.
    if rank == "0" or not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
        print(text, file=sys.stderr)
    else:
        # torchrun stops all as soon as one has failed: let the first finish its sentence.
        time.sleep(1)


def check_printed() -> None:
    """Raise UserError where what was printed to stdout is lost, but for a reader that had enough
    of it (head)."""
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost is not None and not isinstance(lost, BrokenPipeError):
        raise UserError(f"standard output cannot be written: {first_line(lost)}; send it elsewhere")


def report(error: Exception) -> int:
    """Say in one line why a command ends; returns its exit code, 2 for a UsageError, else 1.

    Args:
        error: one of REPORTED. A RuntimeError of another kind than torch's for memory is a bug,
            and raised again.
    """
    if isinstance(error, RuntimeError) and not isinstance(error, UserError):
        # torch has a class of its own for it on a GPU only.
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise error
        error = MemoryError()
    print(_lines(error), file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1


def _lines(error):
    text = str(error) or (
        "not enough memory" if isinstance(error, MemoryError) else type(error).__name__)
    if isinstance(error, OSError):
        path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        text = path + first_line(error)
    return "\n".join(map(printable, f"error: {text}".split("\n")))


class _Screen:
    """A standard stream from which text that cannot be written is dropped; `lost` is the error of
    the first, or None."""

    def __init__(self, stream):
        self.lost = None
        if stream is None:  # Python's, for a stream that was closed when the program started
            stream = open(os.devnull, "w", encoding="utf-8")
            self.lost = OSError(errno.EBADF, os.strerror(errno.EBADF))
        if hasattr(stream, "reconfigure"):
            # What a terminal's encoding lacks is escaped.
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return self._try(self._stream.write, text)

    def flush(self):
        self._try(self._stream.flush)

    def _try(self, function, *args):
        try:
            return function(*args)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed meanwhile
            self.lost = self.lost or error
        # The interpreter would try once more at its end, and complain.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def _screen():
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else a file of ours would get the number, and with it what libraries in C print.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    screens = sys.stdout, sys.stderr = tuple(map(_Screen, before))
    try:
        yield
    finally:
        for screen in screens:
            screen.flush()
        sys.stdout, sys.stderr = before
