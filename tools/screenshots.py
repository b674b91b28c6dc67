"""Pictures of TensorBoard's tabs, and of a report page, by a headless browser.

    python tools/screenshots.py runs/demo docs/pictures/monitoring --report=report.html

Starts TensorBoard on the runs below a directory, opens each tab in Chromium and saves
what is shown. Needs selenium, Chromium and its driver (Debian: chromium,
chromium-driver).
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_dpred.config import paths
from tf_dpred.system import terminal

TABS = {
    "scalars": "#scalars",
    "images": "#images",
    "histograms": "#histograms",
    "distributions": "#distributions",
    "text": "#text",
    "hparams": "#hparams",
    "projector": "#projector",
}
# With these, it connects to this machine alone.
CHROMIUM = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
)
PATIENCE = 60.0  # seconds for TensorBoard to answer


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """A running TensorBoard -> its address."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}"]
    command += [f"--port={port}", "--samples_per_plugin=images=100"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://localhost:{port}/"
    try:
        wait_for(f"{address}data/runs")
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str) -> None:
    """Returns when there is an answer that names runs."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address) as answer:
                if answer.read().strip() != b"[]":
                    return
        except urllib.error.URLError:
            pass
        time.sleep(0.5)
    sys.exit(f"screenshots: {address} gave no runs within {PATIENCE:.0f} s")


@contextmanager
def browser(width: int, height: int):
    """A headless Chromium with a window of that size."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in (*CHROMIUM, f"--window-size={width},{height}"):
        options.add_argument(argument)
    # Without this, selenium would ask the network for a driver.
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def save(driver, address: str, path: Path, seconds: float) -> None:
    """Opens a page, gives it time to draw, saves what the window shows."""
    driver.get("about:blank")  # else only the part behind # would change
    driver.get(address)
    time.sleep(seconds)
    driver.save_screenshot(str(path))
    shrink(path)
    print(path, flush=True)


def shrink(path: Path) -> None:
    """Gives a picture a palette: a third of the bytes, hardly a visible difference."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logdir", type=paths.argument, help="holds work directories")
    parser.add_argument("output", type=paths.argument, help="directory of the pictures")
    parser.add_argument("--report", type=paths.argument, help="page of --mode=report")
    parser.add_argument("--tabs", default=",".join(TABS), help="some of the default")
    parser.add_argument("--seconds", type=float, default=12.0, help="a tab may take")
    parser.add_argument("--size", default="1400x900", help="of the window, pixels")
    given = parser.parse_args()
    unknown = set(given.tabs.split(",")) - set(TABS)
    if unknown or not given.logdir.is_dir():
        wrong = f"--tabs={unknown}" if unknown else str(given.logdir)
        parser.error(f"received {wrong}, accepted: {', '.join(TABS)}; a directory")
    if not (size := re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", given.size)):
        parser.error(f"--size: received {given.size!r}, accepted: as 1400x900")
    if given.report and not given.report.is_file():
        parser.error(f"--report: received {str(given.report)!r}, accepted: a file")
    width, height = map(int, size.groups())
    given.output.mkdir(parents=True, exist_ok=True)
    with browser(width, height) as driver:
        with tensorboard(given.logdir) as address:
            for tab in given.tabs.split(","):
                path = given.output / f"{tab}.png"
                save(driver, address + TABS[tab], path, given.seconds)
        if given.report:
            driver.set_window_size(1000, 2400)
            page = given.report.resolve().as_uri()
            save(driver, page, given.output / "report.png", 2.0)


if __name__ == "__main__":
    sys.exit(terminal.run("screenshots", main))
