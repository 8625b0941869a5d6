"""A cluster for the tests of utilities."""

from __future__ import annotations

from tests.api.conftest import cluster, run, script

__all__ = ["cluster", "run", "script"]
