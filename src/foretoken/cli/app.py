"""Registers the commands, and turns every error into one line on stderr and an exit code.

0 done · 2 bad arguments or input · 1 failure · 130 after Ctrl-C · 141 when the reader of stdout has gone.
No traceback reaches a user, unless FORETOKEN_TRACEBACK asks for it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from importlib.metadata import version
from typing import Annotated, TextIO

import typer

from foretoken.cli import bench, chat, demo, distill, generate, info, pull, quantize, selftest, terminal, tune
from foretoken.errors import ForetokenError

# typer's own parser errors; newer releases bundle click, older ones import it, so we ask typer for the class.
PARSER_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

READER_LEFT = 141  # 128 + SIGPIPE, what a shell shows for a program whose reader has gone

app = typer.Typer(
    name="foretoken",
    help="Runs Gemma 4 several tokens a step, with exactly the text of plain decoding.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut the names of options off at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(info.info)
app.command()(pull.pull)
app.command()(quantize.quantize)
app.command()(selftest.selftest)
app.command()(demo.demo)
app.command()(distill.distill)
app.command()(tune.tune)
app.add_typer(bench.app, name="bench")


def _print_version(asked: bool) -> None:
    if asked:
        print(version("foretoken-mtp"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `foretoken` script."""
    _open_missing_streams()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # that has been said; at exit it would be tried again, and end in an exit code of its own
        _drop_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: a late Ctrl-C must not change the exit code
    sys.exit(code)


def _open_missing_streams() -> None:
    """Standard streams that the caller closed read nothing and write nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if sys.__dict__[name] is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (for the whole run)


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code."""
    _speak_utf8(sys.stdout)
    _speak_utf8(sys.stderr)
    try:
        code = app(args=arguments or ["--help"], prog_name="foretoken", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except ForetokenError as error:
        return _fail(error, str(error), 2)
    except PARSER_ERROR as error:
        return _fail(error, _parser_message(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # else the parser, which makes an exit of a broken pipe
        _drop_stdout()
        return READER_LEFT
    except Exception as error:
        return _fail(error, f"{type(error).__name__}: {error}", 1)


def _fail(error: Exception, message: str, code: int) -> int:
    if os.environ.get("FORETOKEN_TRACEBACK"):
        traceback.print_exception(error)
    terminal.say(message)
    return code


def _parser_message(error: Exception) -> str:
    return error.format_message()  # type: ignore[attr-defined]  # of ClickException, see PARSER_ERROR


def _speak_utf8(stream: TextIO) -> None:
    """Text is UTF-8 whatever the locale says; what a terminal cannot show never stops an answer."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _drop_stdout() -> None:
    """The reader has gone: send what is still buffered nowhere, or the interpreter complains when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
