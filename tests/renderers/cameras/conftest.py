"""Programs of these tests are compiled as those of users are: some compare differences to float32's last digits."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """Takes the place of the fixture of the folder above."""
