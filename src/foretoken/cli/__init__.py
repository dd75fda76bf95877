"""The `foretoken` command. One file per command; nothing here decides a token."""

from foretoken.cli.app import main

__all__ = ["main"]
