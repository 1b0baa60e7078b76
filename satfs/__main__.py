"""Run the command line as `python -m satfs`."""

from satfs.cli import main

if __name__ == "__main__":
    main()
