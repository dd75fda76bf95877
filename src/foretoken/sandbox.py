"""Where a chat template runs. It is a small program that others wrote, so its time and the values it makes are bounded.

Every block, call, filter and test is a step; a step looks at the processor time that the render has taken and raises
`InputError` when that is too much, so nested loops and macros that call each other end. Operators and functions that
can make a long value from short ones are looked at before they run, and what they make is counted. A list that holds
another one twice, and so on, is short but has no end when it is written out, compared or hashed: that happens in one
call that nothing can stop, so values are measured before. Jinja's own sandbox does the rest: no private attributes, no
changes to what was passed in, at most 100,000 numbers in a range.

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
from itertools import islice
from types import BuiltinMethodType
from typing import Any, NoReturn

import jinja2
import jinja2.compiler
import jinja2.ext
import jinja2.sandbox

from foretoken.errors import InputError

MAX_RENDER_S = 10.0  # processor time of this thread; a thousand messages take less than a hundredth of it
MAX_CHARS = 64 << 20  # of one value, and of a prompt
MAX_MADE = 128 << 20  # characters and 8-byte entries of all values that a render makes: it may keep them
MAX_VALUES = 1 << 18  # of a list with all that is in it
MAX_WIDTH = 1 << 20  # of a repeated or padded text
MAX_BITS = 1 << 12  # of a product of whole numbers
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5,})")
_WIDE_BRACES = re.compile(r":[^}]*(\{|\d{5,})")
_PADDING = {"center", "indent", "slice", "batch", "wordwrap", "tojson", "round"}  # filters that take a width
_GROWING = {"join", "replace", "indent", "expandtabs", "wordwrap", "translate"}  # up to the product of two lengths
_FLAT = {  # filters that never look into the entries of a list
    "length", "count", "first", "last", "list", "items", "default", "d", "reverse", "attr",
    "map", "select", "reject", "selectattr", "rejectattr", "slice", "batch",
}  # fmt: skip
_COMPARING = {"eq", "ne", "lt", "le", "gt", "ge", "in", "equalto", "greaterthan", "lessthan", "sameas"}
_COMPARING |= {"==", "!=", "<", "<=", ">", ">="}  # of the tests only these look into a list
_UNUSED = {"pprint", "urlize", "xmlattr"}  # filters for web pages, whose time has no bound


class _Steps(jinja2.compiler.CodeGenerator):
    """Begins every block (a loop's or macro's body, a branch) with a step, and looks at values where they are joined,
    compared or hashed."""

    def blockvisit(self, nodes: Iterable[jinja2.nodes.Node], frame: jinja2.compiler.Frame) -> None:
        self.writeline("environment.step()")
        super().blockvisit(nodes, frame)

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: jinja2.compiler.Frame) -> None:
        self.write("environment.join((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _write_by(self, function: str, write: Callable[[Any, Any], None], node: Any, frame: Any) -> None:
        self.write(f"environment.{function}(")
        write(node, frame)
        self.write(")")

    def visit_List(self, node: jinja2.nodes.List, frame: jinja2.compiler.Frame) -> None:
        self._write_by("made", super().visit_List, node, frame)

    def visit_Tuple(self, node: jinja2.nodes.Tuple, frame: jinja2.compiler.Frame) -> None:
        if node.ctx == "load":  # not the names of `for a, b in`
            self._write_by("made", super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: jinja2.nodes.Getitem, frame: jinja2.compiler.Frame) -> None:
        if isinstance(node.arg, jinja2.nodes.Slice):  # a copy
            self._write_by("made", super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_Pair(self, node: jinja2.nodes.Pair, frame: jinja2.compiler.Frame) -> None:
        self._write_by("bounded", self.visit, node.key, frame)
        self.write(": ")
        self.visit(node.value, frame)

    def visit_Dict(self, node: jinja2.nodes.Dict, frame: jinja2.compiler.Frame) -> None:
        self.write("environment.made({")
        for item in node.items:
            self.visit_Pair(item, frame)
            self.write(", ")
        self.write("})")

    def visit_Compare(self, node: jinja2.nodes.Compare, frame: jinja2.compiler.Frame) -> None:
        """Two values are compared as far as the smaller one goes, so of each pair the left one is looked at."""
        self.write("(")
        self._write_by("bounded", self.visit, node.expr, frame)
        for i, operand in enumerate(node.ops, 1):
            self.write(f" {jinja2.compiler.operators[operand.op]} ")
            if i < len(node.ops):
                self._write_by("bounded", self.visit, operand.expr, frame)
            else:
                self.visit(operand.expr, frame)
        self.write(")")


class Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment; `limited` starts a render's time."""

    code_generator_class = _Steps
    intercepted_binops = frozenset({"*", "**", "%", "+"})  # these are never folded while parsing

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        self._clock = threading.local()
        self.finalize = self.bounded  # of every value that is written
        for name in _UNUSED:
            del self.filters[name]
        self.filters["tojson"] = self._to_json
        self.filters = {n: self._watched(n, function, n not in _FLAT) for n, function in self.filters.items()}
        self.tests = {n: self._watched(n, function, n in _COMPARING) for n, function in self.tests.items()}
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        del self.globals["lipsum"]

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Let what this thread renders inside take `MAX_RENDER_S` of processor time, and make `MAX_MADE`."""
        self._clock.end = time.thread_time() + MAX_RENDER_S
        self._clock.made = 0
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

    def bounded(self, value: Any) -> Any:
        """The value, which may be written out, compared or hashed: raises InputError if that may not end."""
        _check_values((value,))
        return value

    def made(self, value: Any) -> Any:
        """The value, a new one, counted; raises InputError once a render has made too much."""
        if isinstance(value, (str, list, tuple, dict)) and "end" in self._clock.__dict__:
            self._clock.made += 8 + len(value) * (1 if isinstance(value, str) else 8)
            if self._clock.made > MAX_MADE:
                raise InputError(f"the chat template makes more than {MAX_MADE} characters, and may not end.")
        return value

    def concat(self, parts: Iterable[str]) -> str:  # of a set block, a macro, a call block
        return self.join(parts)

    def join(self, parts: Iterable[Any]) -> str:
        """Texts one after the other."""
        texts = [str(self.bounded(part)) for part in parts]
        _check_size(sum(map(len, texts)))
        joined: str = self.made("".join(texts))
        return joined

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operator(operator, left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, self.bounded(argument) if isinstance(argument, tuple) else argument)

    def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:
        __self.step()
        if isinstance(__obj, jinja2.runtime.Macro):  # what it does with its arguments is looked at inside
            return super().call(__context, __obj, *args, **options)
        args = tuple(map(_settled, args))
        _check_values((*args, *options.values()))
        if isinstance(__obj, BuiltinMethodType) and isinstance(__obj.__self__, str):
            _check_growth(__obj.__name__, (__obj.__self__, *args, *options.values()), has_width=True)
        return __self.made(super().call(__context, __obj, *args, **options))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if isinstance(value, BuiltinMethodType) and value.__name__ in ("format", "format_map"):
            _check_format(_WIDE_BRACES, value.__self__)
            return self._bounded_format(value)
        return super().wrap_str_format(value)

    def _bounded_format(self, method: Any) -> Callable[..., str]:
        """Jinja's own sandboxed `str.format`, or `format_map`, after a look at what it may grow to."""
        inner = super().wrap_str_format(method)
        assert inner is not None

        def bounded(*args: Any, **options: Any) -> str:
            _check_fields(method.__self__, (args, options))
            return inner(*args, **options)

        return bounded

    def _watched(self, name: str, function: Any, looks_inside: bool) -> Callable[..., Any]:
        """A filter or test that counts as a step."""

        @wraps(function)
        def watched(*args: Any, **options: Any) -> Any:
            self.step()
            if looks_inside:
                args = tuple(map(_settled, args))
                _check_values((*args, *options.values()))
            _check_growth(name, (*args, *options.values()), has_width=name in _PADDING)
            if name == "format":
                _check_format(_WIDE_PERCENT, args[0])
                _check_fields(str(args[0]), (args[1:], options))
            return self.made(function(*args, **options))

        return watched

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Jinja's own filter escapes HTML, which a prompt must not."""
        if any(len(mark) > 64 for mark in (separators or ())) or len(str(indent)) > 64:
            raise InputError("the chat template pads with tojson, which may not end.")
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        if indent is None:
            return encoder.encode(value)
        pieces, size = [], 0  # the indent of a deep value may be longer than itself
        for piece in encoder.iterencode(value):
            pieces.append(piece)
            size += len(piece)
            _check_size(size)
        return "".join(pieces)


def _check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse a power, a repeated text or a padded format that would take memory out of proportion."""
    numbers = [abs(x) for x in (left, right) if isinstance(x, (int, float))]
    texts = [len(x) for x in (left, right) if isinstance(x, (str, list, tuple))]
    if operator == "+":
        _check_size(sum(texts))
        return
    bits = sum(x.bit_length() for x in numbers if isinstance(x, int))
    too_large = (operator == "**" and max(numbers, default=0) > 64) or (
        operator == "*" and (bits > MAX_BITS or (texts and max(texts) * max(numbers, default=0) > MAX_WIDTH))
    )
    if too_large or (operator == "%" and texts):
        raise InputError(
            f"the chat template computes {str(left)[:20]} {operator} {str(right)[:20]}, which may not end."
        )


def _check_growth(name: str, args: tuple[Any, ...], has_width: bool) -> None:
    """Refuse a width beyond reason, and a function whose result would be as long as two arguments multiplied."""
    if has_width and any(isinstance(x, int) and abs(x) > MAX_WIDTH for x in args[1:]):
        raise InputError(f"the chat template pads with {name}, which may not end.")
    if name in _GROWING:
        lengths = sorted(abs(x) if isinstance(x, int) else _check_values((x,)) for x in args)
        _check_size(math.prod(lengths[-2:]) // 4)


def _check_fields(form: str, args: Any) -> None:
    """Refuse a format whose fields, all as long as everything that is put in, would be a text beyond reason."""
    _check_size((form.count("{") + form.count("%")) * _check_values((args,)))


def _settled(value: Any) -> Any:
    """What an iterator still gives, as a list that can be looked at; any other value as it is."""
    return list(islice(value, MAX_VALUES)) if isinstance(value, Iterator) else value


def _check_values(values: Iterable[Any]) -> int:
    """Characters and entries of the values with all that is in them; raises InputError where that may not end."""
    count, size, left = 0, 0, list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            size += len(value)
            continue
        if isinstance(value, jinja2.utils.Namespace):
            value = value._Namespace__attrs  # it is written out with these
        if isinstance(value, dict):
            left.extend(value)
            left.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            left.extend(value)
        count += 1
        if count + len(left) > MAX_VALUES:
            raise InputError(f"the chat template makes a list of more than {MAX_VALUES} values, which may not end.")
    _check_size(size + count)
    return size + count


def _check_format(wide: re.Pattern[str], text: Any) -> None:
    if wide.search(str(text)):
        raise InputError("the chat template pads with format, which may not end.")


def _check_size(num_chars: int) -> None:
    if num_chars > MAX_CHARS:
        raise InputError(f"the chat template makes a text of more than {MAX_CHARS} characters.")


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
