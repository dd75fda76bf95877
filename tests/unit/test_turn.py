import pytest
from pair import embedded

from foretoken.tokenizer import TextStream
from foretoken.turn import Part, TurnReader, joined, message

THOUGHT = "<|channel>thought\nThey greet me.\n<channel|>"
CALL = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'


def ids(text):
    return embedded().tokenizer.encode(text, add_bos=False)


def read(text, stop=(), prompt="<|turn>model\n"):
    """Parts, and the text that `TextStream` alone gives."""
    stream = TextStream(embedded().tokenizer, stop)
    reader = TurnReader(embedded().tokenizer, stream, ids(prompt))
    parts, shown = [], ""
    for token in ids(text):
        piece = stream.push(token)
        shown += piece
        parts += reader.push(token, piece)
        if stream.stopped:
            break
    rest = stream.finish()
    return joined(parts + reader.finish(rest)), shown + rest


def test_an_answer_alone_is_one_part():
    assert read("Hello, world.") == ([Part("answer", "Hello, world.")], "Hello, world.")


def test_thought_and_answer_are_told_apart():
    parts, text = read(THOUGHT + "Hello.")
    assert parts == [Part("thought", "They greet me.\n"), Part("answer", "Hello.")]
    assert text == "thought\nThey greet me.\nHello."


@pytest.mark.parametrize(
    "prompt",
    [
        "<|turn>model\n<|channel>thought\n",
        "<|turn>user\nx<turn|>\n<|channel>thought\nSo",
        f"<|turn>model\n{CALL}<|tool_response>response:f{{}}<tool_response|><|channel>thought\n",  # as Gemma 4's does
    ],
)
def test_a_thought_that_the_prompt_opened(prompt):
    parts, _ = read("They greet me.<channel|>Hello.", prompt=prompt)
    assert parts == [Part("thought", "They greet me."), Part("answer", "Hello.")]


@pytest.mark.parametrize("prompt", ["<|channel>a\n<|turn>model\n", "<|turn>model\n<|channel>thought\n<channel|>", "x"])
def test_a_prompt_that_opens_nothing(prompt):
    assert read("Hello.", prompt=prompt)[0] == [Part("answer", "Hello.")]


def test_an_empty_thought_is_no_part():
    assert read("<|channel>thought\n<channel|>Hello.")[0] == [Part("answer", "Hello.")]


def test_a_thought_that_never_ends():
    assert read("<|channel>thought\nSo many")[0] == [Part("thought", "So many")]


def test_calls_are_spelled_and_stay_apart():
    parts, _ = read(THOUGHT + "Let me see." + CALL + CALL)
    assert [part.kind for part in parts] == ["thought", "answer", "call", "call"]
    assert parts[2].text == parts[3].text == CALL
    assert read(CALL[:30])[0] == [Part("call", CALL[:30])]


def test_text_that_waits_for_a_stop_string_keeps_its_kind():
    parts, text = read("Hel<|channel>thought\nmore<channel|>lo", stop=["Hello you"])
    assert parts == [Part("answer", "Hel"), Part("thought", "more"), Part("answer", "lo")]
    assert text == "Helthought\nmorelo"


def test_nothing_after_a_stop_string():
    parts, text = read(THOUGHT + "Hello END" + CALL, stop=["END"])
    assert parts == [Part("thought", "They greet me.\n"), Part("answer", "Hello ")]
    assert text.endswith("Hello ")
    assert read("So EN<|tool_call>D", stop=["END"])[0] == [Part("answer", "So ")]


def test_an_answer_as_a_message():
    parts, _ = read(THOUGHT + " Let me see.\n" + CALL + "<|tool_call>call:{}<tool_call|>")
    told = message(parts)
    assert told["content"] == "Let me see."
    assert told["reasoning"] == told["reasoning_content"] == "They greet me."
    [call] = told["tool_calls"]  # the second has no name
    assert call["function"] == {"name": "get_weather", "arguments": {"city": "Paris"}}
    assert message(read("Hi.")[0]) == {"role": "assistant", "content": "Hi."}


def test_spelled_text_is_what_the_model_wrote():
    text = THOUGHT + "Hello." + CALL + "<turn|>"
    assert embedded().tokenizer.spell(ids(text)) == text
