"""A real Chromium for system tests, from Debian's packages."""

import shutil
from pathlib import Path


def start(profile: Path):
    """A headless browser that keeps its console's log; call `quit()` on it at the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    arguments = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "window-size=1400,1000")
    for argument in (*arguments, f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def complaints(browser) -> list[dict]:
    """What the console has said since it was last asked."""
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
