"""TensorBoard's page in headless Chromium: opened, waited for, asked and photographed.

python -m tests.browser LOGDIR OUT.png "#timeseries"
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAIN = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-3d-apis", "--hide-scrollbars")  # charts as SVG


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def opened(logdir: Path, place: str, size: str = "1500,1100") -> Iterator[str]:
    """TensorBoard on `logdir`, page `place` (#timeseries, …), in a browser; gives the address that drives the page."""
    port, control = free_port(), free_port()
    with tempfile.TemporaryDirectory() as profile:
        board = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        servers = [subprocess.Popen([*board, "--load_fast=false"], **quiet)]
        try:
            until(lambda: json.loads(fetched(f"http://localhost:{port}/data/runs")))
            flags = (f"--remote-debugging-port={control}", f"--user-data-dir={profile}", f"--window-size={size}")
            servers.append(subprocess.Popen([CHROMIUM, *PLAIN, *flags, f"http://localhost:{port}/{place}"], **quiet))
            pages = until(lambda: json.loads(fetched(f"http://localhost:{control}/json/list")))
            yield next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
        finally:
            for server in reversed(servers):
                server.terminate()
                server.wait(30)


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return answer.read()


def until(ask, seconds: float = 60):
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if found := ask():
                return found
        time.sleep(0.25)
    raise TimeoutError(f"no answer within {seconds} s")


def command(page: str, method: str, **parameters):
    """One command of the DevTools protocol."""
    from websockets.sync.client import connect

    with connect(page, max_size=None) as talk:
        talk.send(json.dumps({"id": 1, "method": method, "params": parameters}))
        while (answer := json.loads(talk.recv())).get("id") != 1:
            pass
    return answer["result"]


def evaluate(page: str, script: str):
    """The value of a JavaScript expression in the page."""
    return command(page, "Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")


def photograph(page: str, path: Path) -> None:
    path.write_bytes(base64.b64decode(command(page, "Page.captureScreenshot")["data"]))


if __name__ == "__main__":
    with opened(Path(sys.argv[1]), sys.argv[3]) as shown:
        time.sleep(20)
        photograph(shown, Path(sys.argv[2]))
