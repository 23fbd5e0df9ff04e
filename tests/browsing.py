"""A reviewer's hands: Debian's Chromium, without a screen, on MLflow's own pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE = 300_000  # milliseconds; a page takes two seconds here, on a busy machine many more


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped, saying so, where there is none."""
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no chromium on this machine; Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]  # /dev/shm is small in containers
        browser = playwright.chromium.launch(executable_path=found, args=arguments, timeout=PATIENCE)
        yield browser
        browser.close()


def choose_promotion(page: Any, server: str, adapter: str, version: str) -> Any:
    """Open a candidate's page, press *Promote model* and choose `<adapter>.released`; gives the dialog."""
    released = f"{adapter}.released"
    page.goto(f"{server}/#/models/{adapter}/versions/{version}")
    page.get_by_role("button", name="Promote model").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").click()
    dialog.get_by_role("combobox").fill(released)
    page.get_by_title(released, exact=True).click()
    dialog.get_by_text("will be copied to").wait_for()
    return dialog


def confirm(dialog: Any) -> None:
    """Press the dialog's button; ends before MLflow has answered."""
    dialog.get_by_role("button", name="Promote", exact=True).click()
