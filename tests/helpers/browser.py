"""Headless Chromium, driven through its debugging port: what the test of the viewer looks through."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
import urllib.request

import numpy as np
from PIL import Image
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # containers run as root
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


def find():
    """The path of a browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page, `width` x `height` pixels; use it as a context."""

    def __init__(self, url, profile, width=1000, height=640):
        """`profile`: an empty folder for the browser's own files."""
        size, self._log = f"--window-size={width},{height}", (profile / "log").open("wb")
        command = [find(), *FLAGS, size, f"--user-data-dir={profile}", url]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        port = self._wait(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
        self._socket = connect(self._wait(lambda: self._page(port)), max_size=None)
        self._number = itertools.count()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def screenshot(self):
        """Return a screenshot, (height, width, 3) uint8."""
        data = self._ask("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def run(self, script):
        """The value of a line of JavaScript."""
        return self._ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def click(self, label):
        """Click the button, checkbox or tab with this text; whether there is one."""
        return self.run(f"""(() => {{
            const named = item => item.innerText.trim() == {label!r};
            const button = [...document.querySelectorAll('button')].find(named);
            const text = [...document.querySelectorAll('label')].find(named);
            const target = button ?? (text && (document.getElementById(text.htmlFor) ?? text));
            if (target) target.click();
            return Boolean(target);
        }})()""")

    def fill(self, label, text):
        """Type a text into the input field with this label; whether there is one."""
        return self.run(f"""(() => {{
            const label = [...document.querySelectorAll('label')].find(item => item.innerText.trim() == {label!r});
            const field = label && document.getElementById(label.htmlFor);
            if (!field) return false;
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, {text!r});
            field.dispatchEvent(new Event('input', {{bubbles: true}}));
            field.dispatchEvent(new Event('change', {{bubbles: true}}));
            field.blur();
            return true;
        }})()""")

    def text(self):
        """The text of the page."""
        return self.run("document.body.innerText")

    def until(self, condition, timeout_s=120.0):
        """Screenshots until one fulfils `condition`; the last one in any case."""
        deadline_s = time.monotonic() + timeout_s
        while not condition(picture := self.screenshot()) and time.monotonic() < deadline_s:
            time.sleep(0.3)
        return picture

    def _ask(self, method, **values):
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": values}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    @staticmethod
    def _page(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as reply:
            pages = [page for page in json.load(reply) if page["type"] == "page"]
        return pages[0]["webSocketDebuggerUrl"]

    @staticmethod
    def _wait(look, timeout_s=30.0):
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return look()
            except (OSError, IndexError):
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
