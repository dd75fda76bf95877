"""Where a chat template runs. It is a small program that others wrote, so its time and the values it makes are bounded.

Every block, call, filter and test is a step; a step looks at the processor time that the render has taken and raises
`InputError` when that is too much, so nested loops and macros that call each other end. Operators and functions that
can make a long value from short ones are looked at before they run. Jinja's own sandbox does the rest: no private
attributes, no changes to what was passed in, at most 100,000 numbers in a range.

Source: transformers 5.24, `utils/chat_template_utils.py` (same filters, functions and options).
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType
from typing import Any, NoReturn

import jinja2
import jinja2.compiler
import jinja2.ext
import jinja2.sandbox

from foretoken.errors import InputError

MAX_RENDER_S = 10.0  # processor time of this thread; a thousand messages take less than a hundredth of it
MAX_CHARS = 64 << 20  # of one value, and of a prompt
MAX_WIDTH = 1 << 20  # of a repeated or padded text
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5,})")
_WIDE_BRACES = re.compile(r":[^}]*(\{|\d{5,})")
_PADDING = {"center", "indent", "slice", "batch", "wordwrap", "tojson"}  # filters that take a width


class _Steps(jinja2.compiler.CodeGenerator):
    """Begins every block (a loop's or macro's body, a branch) with a step, and joins texts where they are looked at."""

    def blockvisit(self, nodes: Iterable[jinja2.nodes.Node], frame: jinja2.compiler.Frame) -> None:
        self.writeline("environment.step()")
        super().blockvisit(nodes, frame)

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: jinja2.compiler.Frame) -> None:
        self.write("environment.join((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment; `limited` starts a render's time."""

    code_generator_class = _Steps
    intercepted_binops = frozenset({"*", "**", "%", "+"})  # these are never folded while parsing

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        self._clock = threading.local()
        self.filters["tojson"] = _to_json
        self.filters = {name: self._watched(name, function) for name, function in self.filters.items()}
        self.tests = {name: self._watched(name, function) for name, function in self.tests.items()}
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        del self.globals["lipsum"]

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Let what this thread renders inside take `MAX_RENDER_S` of processor time."""
        self._clock.end = time.thread_time() + MAX_RENDER_S
        try:
            yield
        finally:
            del self._clock.end

    def step(self) -> None:
        """Raise InputError once the time is over; outside a render, while a template is parsed, nothing counts."""
        end = self._clock.__dict__.get("end", math.inf)
        if time.thread_time() > end:
            raise InputError(
                f"the chat template took more than {MAX_RENDER_S:g} s and may not end. Use the model's own template."
            )

    def concat(self, parts: Iterable[str]) -> str:  # of a set block, a macro, a call block
        return self.join(parts)

    def join(self, parts: Iterable[Any]) -> str:
        """Texts one after the other."""
        texts = [str(part) for part in parts]
        _check_size(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:
        __self.step()
        if isinstance(__obj, BuiltinMethodType) and isinstance(__obj.__self__, str):
            _check_growth(__obj.__name__, (__obj.__self__, *args, *options.values()), has_width=True)
        return super().call(__context, __obj, *args, **options)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if isinstance(value, BuiltinMethodType) and value.__name__ in ("format", "format_map"):
            _check_format(_WIDE_BRACES, value.__self__)
        return super().wrap_str_format(value)

    def _watched(self, name: str, function: Any) -> Callable[..., Any]:
        """A filter or test that counts as a step."""

        @wraps(function)
        def watched(*args: Any, **options: Any) -> Any:
            self.step()
            _check_growth(name, (*args, *options.values()), has_width=name in _PADDING)
            if name == "format":
                _check_format(_WIDE_PERCENT, args[0])
            return function(*args, **options)

        return watched


def _check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse a power, a repeated text or a padded format that would take memory out of proportion."""
    numbers = [abs(x) for x in (left, right) if isinstance(x, (int, float))]
    texts = [len(x) for x in (left, right) if isinstance(x, (str, list, tuple))]
    if operator == "+":
        _check_size(sum(texts))
        return
    too_large = (operator == "**" and max(numbers, default=0) > 64) or (
        operator == "*" and texts and max(texts) * max(numbers, default=0) > MAX_WIDTH
    )
    if too_large or (operator == "%" and texts):
        raise InputError(
            f"the chat template computes {str(left)[:20]} {operator} {str(right)[:20]}, which may not end."
        )


def _check_growth(name: str, args: tuple[Any, ...], has_width: bool) -> None:
    """Refuse a width beyond reason, and a join or replace whose result would be."""
    if has_width and any(isinstance(x, int) and abs(x) > MAX_WIDTH for x in args[1:]):
        raise InputError(f"the chat template pads with {name}, which may not end.")
    if name in ("join", "replace"):
        _check_size(math.prod(sorted(len(x) for x in args if isinstance(x, (str, list, tuple)))[-2:]) // 4)


def _check_format(wide: re.Pattern[str], text: Any) -> None:
    if wide.search(str(text)):
        raise InputError("the chat template pads with format, which may not end.")


def _check_size(num_chars: int) -> None:
    if num_chars > MAX_CHARS:
        raise InputError(f"the chat template makes a text of more than {MAX_CHARS} characters.")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which a prompt must not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
