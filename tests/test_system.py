"""What a user sees in the browser: TensorBoard on a real run, opened in a real Chromium. Needs Debian packages."""

import re
import socket
import subprocess
import sys
import time

from experiments import PROJECT

import chromium
import pytest

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "experiments/dpsom.py", "with", "fast", f"tracking.runs_dir={runs}", "compute.threads=1"]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    return next(runs.glob("dpsom/1"))


@pytest.fixture(scope="module")
def tensorboard(run_folder):
    """URL of a TensorBoard server over the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run_folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = chromium.start(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


def text_of(browser, url: str, expected: str, seconds: float = 120) -> str:
    """The page's text once it holds `expected`; fails with what it holds instead."""
    from selenium.webdriver.common.by import By

    browser.get(url)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = browser.find_element(By.TAG_NAME, "body").text
        if re.search(expected, text):
            return text
        time.sleep(0.5)
    raise AssertionError(f"{expected!r} never appeared in: {text[:2000]}")


def test_scalars_of_every_phase_and_pictures_are_shown(browser, tensorboard, run_folder, tmp_path):
    text = text_of(browser, f"{tensorboard}/#timeseries", "decoded_map")
    browser.save_screenshot(str(tmp_path / "tensorboard.png"))
    for group in ("pretrain", "som", "joint", "validation", "test", "decoded_map", "hit_map", "label_map", "u_matrix"):
        assert group in text
    broken = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not broken


def test_hyperparameters_are_shown(browser, tensorboard):
    assert "test/purity" in text_of(browser, f"{tensorboard}/#hparams", "test/purity")
