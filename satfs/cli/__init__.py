"""Turn words on a command line into a call, and a failure into a message and an exit code."""

from satfs.cli.main import main

__all__ = ["main"]
