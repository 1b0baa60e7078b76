"""Turn words on a command line into a call, and a failure into a message and an exit code."""

try:
    from satfs.cli.main import main
except KeyboardInterrupt:  # the imports take some tenths of a second; later it is caught there
    raise SystemExit(130) from None  # `Exit.INTERRUPTED`, which may not be imported yet

__all__ = ["main"]
