"""What this project has logged, without the libraries that other tests left at work."""

from __future__ import annotations

import logging

import pytest


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The captured records of fbm_dist's loggers."""
    return [record for record in caplog.records if record.name.startswith("fbm_dist")]
