"""A headless Chromium, driven over its debugging pipe: what a test needs of the DevTools protocol and no more."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from itertools import count

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13}


def _pipe():
    """A pipe whose ends are far from 3 and 4, which the browser gets."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Browser:
    """One page in one window.

    Args:
        folder: where it may keep its profile.
    """

    def __init__(self, folder):
        commands, self._write = _pipe()
        self._read, answers = _pipe()

        def wire():
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        self._process = subprocess.Popen(
            [CHROMIUM, *options, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"],
            preexec_fn=wire, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._numbers, self._rest, self._session, self.errors = count(1), b"", None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def send(self, method, **params):
        """Send a command and give its result."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._answer()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(answer["params"])

    def _answer(self):
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, address, width=1000, height=900, scheme="light"):
        """Open a page in a window of a width, and wait until it is loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=address)
        for _ in range(200):
            if self.evaluate("location.href != 'about:blank' && document.readyState") == "complete":
                return
            time.sleep(0.05)
        raise AssertionError(f"{address} was not loaded")

    def evaluate(self, expression):
        """The value of an expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, times=1):
        """Press a key as a person does."""
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def picture(self, path):
        """Save the whole page as a PNG."""
        self._save(path, self.send("Page.captureScreenshot", captureBeyondViewport=True))

    def paper(self, path):
        """Save the page as it would be printed."""
        self._save(path, self.send("Page.printToPDF", printBackground=True))

    @staticmethod
    def _save(path, answer):
        path.write_bytes(base64.b64decode(answer["data"]))
