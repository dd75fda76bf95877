"""The `foretoken` command. One file per command; nothing here decides a token."""

import sys


def main() -> None:
    """Entry point of the `foretoken` script; a Ctrl-C while modules are imported ends it as any other does."""
    try:
        from foretoken.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
