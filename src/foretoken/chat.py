"""Chat messages to one prompt, by the model's own Jinja template. The template comes from a file that others wrote:
it runs in a sandbox that cannot change its inputs, and its size and its output are bounded.

Source: transformers 5.24, `utils/chat_template_utils.py` (same environment, filters and functions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from foretoken.errors import InputError, WeightsError

if TYPE_CHECKING:
    import jinja2

MAX_TEMPLATE_BYTES = 1 << 20
MAX_PROMPT_CHARS = 64 << 20


class ChatTemplate:
    """chat_template.jinja of a model folder, ready to render."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], origin: str = "chat template") -> None:
        """special_tokens  names such as bos_token and their text, which the template may use

        raises  WeightsError if the template does not parse
        """
        import jinja2  # here, not above: most commands never render a template

        if len(source.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE_BYTES:
            raise WeightsError(f"{origin} is larger than {MAX_TEMPLATE_BYTES >> 20} MiB. Use the model's own template.")
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, SyntaxError, RecursionError, ValueError, MemoryError) as error:
            raise WeightsError(f"{origin} does not parse: {error}. Copy it again from its source.") from error
        self._special_tokens = dict(special_tokens)

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTemplate | None:
        """The folder's template, or None if it has none. An older tokenizer_config.json may hold it instead."""
        folder = Path(folder)
        settings = _settings(folder / "tokenizer_config.json")
        path = folder / "chat_template.jinja"
        if path.is_file():
            return cls(_read(path, MAX_TEMPLATE_BYTES), _special_tokens(settings), str(path))
        inside = settings.get("chat_template")
        if isinstance(inside, str):
            return cls(inside, _special_tokens(settings), f"chat_template in {folder / 'tokenizer_config.json'}")
        return None

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **options: Any) -> str:
        """One prompt text, start token included: encode it without adding another.

        messages  mappings with role and content; the template decides which roles there are
        options   further variables of the template, for example tools or enable_thinking
        raises    InputError if there is no message, or the template refuses them
        """
        if not messages:
            raise InputError("there are no messages. Give at least one.")
        variables = {"tools": None, "documents": None, **self._special_tokens, **options}
        parts, size = [], 0
        try:
            pieces = self._template.generate(
                messages=[dict(m) for m in messages], add_generation_prompt=add_generation_prompt, **variables
            )
            for piece in pieces:
                size += len(piece)
                if size > MAX_PROMPT_CHARS:
                    raise InputError(f"the chat template wrote more than {MAX_PROMPT_CHARS} characters.")
                parts.append(piece)
        except InputError:
            raise
        except Exception as error:  # a template is a small program: what it can raise has no end
            raise InputError(f"the chat template refuses these messages: {error}.") from error
        return "".join(parts)


def _environment() -> jinja2.Environment:
    import jinja2.ext
    import jinja2.sandbox

    class Bounded(jinja2.sandbox.ImmutableSandboxedEnvironment):
        """Operators that can grow a value without bound are looked at first, and never folded while parsing."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_growth(operator, left, right)
            return super().call_binop(context, operator, left, right)

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _check_growth(operator: str, left: Any, right: Any) -> None:
    """Refuse a power, a repeated text or a padded format that would take memory out of proportion."""
    numbers = [abs(x) for x in (left, right) if isinstance(x, (int, float))]
    texts = [len(x) for x in (left, right) if isinstance(x, (str, list, tuple))]
    too_large = (operator == "**" and max(numbers, default=0) > 64) or (
        operator == "*" and texts and max(texts) * max(numbers, default=0) > MAX_TEMPLATE_BYTES
    )
    if too_large or (operator == "%" and texts):
        raise InputError(
            f"the chat template computes {str(left)[:20]} {operator} {str(right)[:20]}, which may not end."
        )


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
    import jinja2

    raise jinja2.TemplateError(message)


def _settings(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(_read(path, 32 * MAX_TEMPLATE_BYTES))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}. Copy it again from its source.") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} holds a {type(settings).__name__}, expected an object.")
    return settings


def _read(path: Path, max_bytes: int) -> str:
    if path.stat().st_size > max_bytes:
        raise WeightsError(f"{path} is larger than {max_bytes >> 20} MiB. Use the model's own file.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and its like; a token may be a text, or an object with the text under `content`."""
    found = {"bos_token": "<bos>"}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found
