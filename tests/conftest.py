"""Fixtures that all tests share."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import config_writer

import attackers.distillation
import attackers.neural
import attackers.qmia
import bench.distilling

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory, monkeypatch):
    """Each test runs in a folder of its own, so that what a stage writes is all that lies there."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.delenv("MIA_DATA", raising=False)


@pytest.fixture
def write_config(tmp_path):
    """write_config(**changes) -> path of a config for the tiny table, with keys changed (None:
    left out)."""
    return config_writer(tmp_path)


@pytest.fixture
def short_attack_training(monkeypatch):
    """Attack networks are trained, and models distilled, for two epochs."""
    for module in (attackers.neural, attackers.qmia, bench.distilling):
        monkeypatch.setattr(module, "CONFIG", replace(module.CONFIG, epochs=2))
    for name in ("TRAJECTORY_CONFIG", "SEQUENCE_CONFIG"):
        short = replace(getattr(attackers.distillation, name), epochs=2)
        monkeypatch.setattr(attackers.distillation, name, short)


@pytest.fixture(scope="session")
def chromium():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip(
            "chromium and chromedriver are not installed (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1000,900",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """A window of 1000 by 900 pixels, with nothing logged yet."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get_log("browser")
    return chromium
