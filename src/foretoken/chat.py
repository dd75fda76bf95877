"""Chat messages to one prompt, by the model's own Jinja template. The template comes from a file that others wrote:
its size and its output are bounded here, what it may do and for how long in `sandbox.py`.

Thoughts of earlier turns are the template's business. Gemma 4's own cuts `<|channel>…<channel|>` out of earlier
answers, and newer ones write a message's `reasoning` again only between the tool calls of the current turn. So whoever
keeps a history gives answer and thought apart, as `content` and `reasoning` (`turn.message`): with those templates the
prompt is the same as if the raw text were given, and one that knows nothing of thoughts cannot send them again.

Source: transformers 5.24, `utils/chat_template_utils.py`; Gemma 4's templates of April to August 2026.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from foretoken.errors import InputError, WeightsError

MAX_TEMPLATE_BYTES = 1 << 20
MAX_PROMPT_CHARS = 64 << 20


class ChatTemplate:
    """chat_template.jinja of a model folder, ready to render."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], origin: str = "chat template") -> None:
        """special_tokens  names such as bos_token and their text, which the template may use

        raises  WeightsError if the template does not parse
        """
        import jinja2  # here, not above: most commands never render a template
        import jinja2.meta

        from foretoken import sandbox

        if len(source.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE_BYTES:
            raise WeightsError(f"{origin} is larger than {MAX_TEMPLATE_BYTES >> 20} MiB. Use the model's own template.")
        try:
            self._environment = sandbox.Bounded()
            self._template = self._environment.from_string(source)
            self._variables = jinja2.meta.find_undeclared_variables(self._environment.parse(source))
        except (jinja2.TemplateError, SyntaxError, RecursionError, ValueError, MemoryError) as error:
            problem = str(error) or "it is too large"  # Python's compiler says nothing
            raise WeightsError(f"{origin} does not parse: {problem}. Copy it again from its source.") from error
        self._special_tokens = dict(special_tokens)

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTemplate | None:
        """The folder's template, or None if it has none. An older tokenizer_config.json may hold it instead."""
        folder = Path(folder)
        settings = _settings(folder / "tokenizer_config.json")
        path = folder / "chat_template.jinja"
        if os.path.isfile(path):
            return cls(_read(path, MAX_TEMPLATE_BYTES), _special_tokens(settings), str(path))
        inside = settings.get("chat_template")
        if isinstance(inside, str):
            return cls(inside, _special_tokens(settings), f"chat_template in {folder / 'tokenizer_config.json'}")
        return None

    def lacks(self, thinking: bool | None, tools: Any) -> list[str]:
        """What of these the template never looks at, so that the model would not notice: a sentence for each."""
        found = []
        if thinking and "enable_thinking" not in self._variables:
            found.append("this model's chat template has no thinking.")
        if tools and "tools" not in self._variables:
            found.append("this model's chat template has no tools.")
        return found

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it reads a content that is a list of parts; others leave it out, or write the list itself."""
        try:
            text = self.render([{"role": "user", "content": [{"type": "text", "text": "Anybody?"}]}])
        except InputError:
            return False
        return "Anybody?" in text and "'type'" not in text

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **options: Any) -> str:
        """One prompt text, start token included: encode it without adding another.

        messages  mappings with role, content and whatever else the template reads (tool_calls, reasoning, …), given
                  to it as they are; the template decides which roles there are
        options   further variables of the template, for example tools or enable_thinking
        raises    InputError if there is no message, or the template refuses them
        """
        if not messages:
            raise InputError("there are no messages. Give at least one.")
        variables = {"tools": None, "documents": None, **self._special_tokens, **options}
        parts, size = [], 0
        try:
            turns = [dict(m) for m in messages]
            with self._environment.limited():
                for piece in self._template.generate(
                    messages=turns, add_generation_prompt=add_generation_prompt, **variables
                ):
                    size += len(piece)
                    if size > MAX_PROMPT_CHARS:
                        raise InputError(f"the chat template wrote more than {MAX_PROMPT_CHARS} characters.")
                    parts.append(piece)
        except InputError:
            raise
        except Exception as error:  # a template is a small program: what it can raise has no end
            raise InputError(f"the chat template refuses these messages: {error}.") from error
        return "".join(parts)


def _settings(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing if there is none."""
    if not os.path.isfile(path):
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
