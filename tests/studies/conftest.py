"""Studies of the tiny table."""

import json

import pytest


@pytest.fixture
def grid(write_config, tmp_path):
    """grid(**keys) -> path of a study of the tiny config."""

    def write(name="grid.json", config=None, **keys):
        path = tmp_path / name
        path.write_text(
            json.dumps({"config": config or write_config(), "attacks": "threshold"} | keys)
        )
        return str(path)

    return write
