"""Fixtures of the tests of data sets: no network, small tables."""

import urllib.error
import urllib.request

import pytest
import torchvision


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Anything that reaches for the network fails the test, past any `except Exception` on the way."""

    def refuse(*args, **kwargs):
        pytest.fail(f"the network was asked for {args}")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
