"""Fixtures of the method tests."""

import pytest

from tests.fakes import TinyBench, tiny_data


@pytest.fixture
def tiny_bench(tmp_path) -> TinyBench:
    """Three classes of six grey 8 x 8 images."""
    return TinyBench(tiny_data(), folder=tmp_path / "resources")
