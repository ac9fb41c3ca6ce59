"""A headless Chromium for tests of pages, driven by its DevTools protocol over two pipes."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import re
import select
import shutil
import signal
import time

import pytest

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
           "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--remote-debugging-pipe")
MODIFIERS = {"Shift": 8}
CODES = {"Tab": 9, "Enter": 13}  # of keys whose default action needs it


def chromium():
    """The path of the browser; skips the test where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is in the PATH")
    return path


def _pipe(child_reads):
    """(our end, the child's end), both above the 3 and 4 that the child gets."""
    low = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return ends[::-1] if child_reads else ends


class Page:
    """One page of a browser of its own; use it as a context."""

    def __init__(self, profile, timeout=60):
        self.timeout = timeout
        self.log = []
        self._ids, self._buffer, self._session = itertools.count(1), b"", None
        self._out, child_in = _pipe(child_reads=True)
        self._in, child_out = _pipe(child_reads=False)
        path = chromium()
        with open(f"{profile}.log", "wb") as log:
            self._pid = os.posix_spawn(
                path, [path, *OPTIONS, f"--user-data-dir={profile}", "about:blank"], os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, child_in, 3),
                              (os.POSIX_SPAWN_DUP2, child_out, 4),
                              (os.POSIX_SPAWN_DUP2, log.fileno(), 2)], setpgroup=0)
        os.close(child_in)
        os.close(child_out)

    def __enter__(self):
        try:
            targets = self.call("Target.getTargets")["targetInfos"]
            target = next(t["targetId"] for t in targets if t["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=target,
                                      flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **params):
        """The result of one command; what happens meanwhile is added to `log`."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data):]
        until = time.monotonic() + self.timeout
        while True:
            answer = self._read(until, method)
            if answer.get("id") != number:
                self.log.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                return answer["result"]

    def _read(self, until, method):
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"{method}: no answer in {self.timeout} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError(f"{method}: the browser has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)

    def evaluate(self, script):
        """The value of a JavaScript expression, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True,
                           returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']['exception']}")
        return answer["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true."""
        until = time.monotonic() + self.timeout
        while not self.evaluate(script):
            if time.monotonic() > until:
                raise TimeoutError(f"not true in {self.timeout} s: {script}")
            time.sleep(0.02)

    def open(self, path, width=1280, height=900, dark=False, touch=False):
        """Load a file in a window of this size."""
        self.log.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=touch)
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.as_uri())
        self.wait(f"location.href === '{path.as_uri()}' && document.readyState === 'complete'")

    def check_log(self):
        """Assert that since `open` no script failed and nothing but the page was loaded."""
        for event in self.log:
            assert event.get("method") != "Runtime.exceptionThrown", event
            assert event.get("params", {}).get("entry", {}).get("level") != "error", event
            url = event.get("params", {}).get("request", {}).get("url", "data:")
            assert re.match(r"data:|about:blank$|file://.*\.html$", url), url

    def key(self, key, modifier=None):
        """Press and release a key; printable ones give their text."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key,
                      modifiers=MODIFIERS.get(modifier, 0),
                      windowsVirtualKeyCode=CODES.get(key, 0),
                      **(text if kind == "keyDown" else {}))

    def point_of(self, selector, across=0.5, down=0.5):
        """Coordinates in the window of a place in an element, scrolled into view."""
        return self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoViewIfNeeded(); const b = e.getBoundingClientRect(); "
            f"return [b.left + {across} * b.width, b.top + {down} * b.height]; }})()")

    def mouse(self, kind, point, pressed=False):
        """kind: mouseMoved, mousePressed or mouseReleased."""
        button = {"button": "left", "clickCount": 1} if pressed or kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=point[0], y=point[1],
                  buttons=int(pressed or kind == "mousePressed"), **button)

    def click(self, selector, across=0.5, down=0.5):
        point = self.point_of(selector, across, down)
        self.mouse("mouseMoved", point)
        self.mouse("mousePressed", point)
        self.mouse("mouseReleased", point)

    def drag(self, start, end):
        self.mouse("mouseMoved", start)
        self.mouse("mousePressed", start)
        self.mouse("mouseMoved", [(a + b) / 2 for a, b in zip(start, end)], pressed=True)
        self.mouse("mouseMoved", end, pressed=True)
        self.mouse("mouseReleased", end)

    def touch(self, *points):
        """One finger down at the first point, moved through the others, and up."""
        self.call("Input.dispatchTouchEvent", type="touchStart",
                  touchPoints=[{"x": points[0][0], "y": points[0][1]}])
        for x, y in points[1:]:
            self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self, whole=False):
        """PNG bytes."""
        return base64.b64decode(self.call("Page.captureScreenshot",
                                          captureBeyondViewport=whole)["data"])

    def pdf(self):
        """Bytes of the printed page."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])
