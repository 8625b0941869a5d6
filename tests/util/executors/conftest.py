"""A cluster for the tests of executors, and programs in processes of their own."""

from tests.api.conftest import cluster, disconnected, run, script

__all__ = ["cluster", "disconnected", "run", "script"]
