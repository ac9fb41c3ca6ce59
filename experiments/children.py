"""Processes that the harness starts of its own modules: each gets a job, all stop together."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable


def start(module: str, job: str, **streams) -> subprocess.Popen:
    """Start `main` of a module of this package, which installed is `pspnet_repro.experiments`, with
    this process's path for imports; `read_job` gives it the line `job`. Streams as of Popen."""
    # `python -m` would import from the folder one stands in first.
    paths = [os.path.abspath(path) for path in sys.path]
    code = (f"import sys; sys.path[:] = {paths!r}; sys.argv[0] = {module!r}\n"
            "from pspnet_repro.errors import imports\n"
            f"with imports(): from {__package__}.{module} import main\n"
            "sys.exit(main())")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, **streams)
    with contextlib.suppress(BrokenPipeError):  # its exit code says why it ended
        process.stdin.write(f"{job}\n".encode())
        process.stdin.flush()
    return process


def read_job() -> str:
    """The job of this process, which is interrupted when the one that started it is gone."""
    def watch():
        while os.read(sys.stdin.fileno(), 1):
            continue
        os.kill(os.getpid(), signal.SIGINT)

    job = sys.stdin.readline()
    threading.Thread(target=watch, daemon=True).start()
    return job


def run_together(items: Iterable, begin: Callable, finish: Callable, at_once: int,
                 look: Callable[[], None] = lambda: None) -> None:
    """Run a process for each item, `at_once` in parallel.

    Args:
        begin: item -> its process; None leaves the item out.
        finish: (item, process that ended); raises where it failed.
        look: called every half second.
    Raises:
        KeyboardInterrupt: a signal came, here or to a process.
        Exception: what the functions raise. Either way the other processes are interrupted first,
            and save their state.
    """
    waiting, running = list(items), {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                item = waiting.pop(0)
                process = begin(item)
                if process is not None:
                    running[process] = item
            time.sleep(0.5)
            for process in [p for p in running if p.poll() is not None]:
                item = running.pop(process)
                if process.returncode == 130:  # the terminal's Ctrl-C reached it first
                    raise KeyboardInterrupt
                finish(item, process)
            look()
    finally:
        # A second Ctrl-C must not leave processes behind that still save.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            process.wait()
        signal.signal(signal.SIGINT, handler)


def last_words(output: bytes, code: int) -> str:
    """Why a process ended: the last line that it printed, or its exit code."""
    said = output.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("error: ")
    return said or f"exit {code}"
