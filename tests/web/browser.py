"""A headless Chromium for the tests, and the page served to it."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import process

PATIENCE = 60.0  # seconds for what a busy machine does at once otherwise


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium for a test in a browser")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("no chromium and chromium-driver for a test in a browser")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root cannot have
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


@contextlib.contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """The address of the page of a folder's runs."""
    with process("-m", "fastmlp.play", *arguments, "--no-browser", cwd=folder) as child:
        assert child.stdout is not None
        yield child.stdout.readline().split()[-1]
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=PATIENCE)


def until(condition: Callable[[], Any]) -> Any:
    """What the condition returns as soon as it holds; what it looks at may be replaced on the page meanwhile."""
    stale = pytest.importorskip("selenium.common.exceptions").StaleElementReferenceException
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(stale):
            if found := condition():
                return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")
