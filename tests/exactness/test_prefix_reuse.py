"""A prompt taken up where an earlier one ended gives the very tokens that reading it whole gives."""

import copy

import gemma_template
import pytest
from pair import embedded

from foretoken.chat import ChatTemplate
from foretoken.turn import message

STORY = "The list goes on: " + " ".join(f"item {i} is number {i * i}," for i in range(90))


def write(scheduler, prompt=None, **options):
    stream = scheduler.stream(prompt, **{"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **options})
    assert "".join(event.text for event in stream) == stream.result.text
    return stream.result


@pytest.mark.parametrize("horizon", [0, 4])
def test_five_turns_read_only_what_is_new(horizon):
    model = embedded()
    scheduler, messages = model.scheduler(parallel=1), []
    before = 0
    for turn in range(5):
        messages.append({"role": "user", "content": f"Continue this list by {turn + 2} items: one, two, three"})
        options = {"messages": list(messages), "temperature": 0.7, "seed": turn, "max_tokens": 20, "horizon": horizon}
        reused = write(scheduler, ignore_eos=False, **options)
        assert reused.tokens == model.generate(**options).tokens
        assert reused.stats.cached_tokens >= before
        assert (reused.stats.cached_tokens > 0) == (turn > 0)
        before = reused.prompt_tokens  # all of this prompt is there for the next turn
        messages.append({"role": "assistant", "content": reused.text})


class Scripted:
    """A sampler that first gives the tokens of a script, whatever the logits say."""

    def __init__(self, sampler, script, prompt_len):
        self.sampler, self.script, self.prompt_len = sampler, script, prompt_len

    def token(self, logits, history, recent=(), ids=None):
        at = len(history) + len(recent) - self.prompt_len
        token = self.sampler.token(logits, history, recent, ids)
        return self.script[at] if at < len(self.script) else token


def answer_with_thought(scheduler, thought, **options):
    """The model thinks as it is told, then writes on by itself."""
    answer = scheduler.submit(**options)
    sequence = answer.sequence
    script = embedded().tokenizer.encode(f"<|channel>thought\n{thought}\n<channel|>", add_bos=False)
    sequence.sampler = Scripted(sequence.sampler, script, sequence.prompt_len)
    for _ in scheduler:
        pass
    return answer


def with_template(source):
    model = copy.copy(embedded())
    model.chat_template = ChatTemplate(source, {"bos_token": "<bos>"})
    return model


@pytest.mark.parametrize("source", [gemma_template.SMALL, gemma_template.LARGE])
@pytest.mark.parametrize("thinking", [True, False])
def test_five_turns_with_thoughts_that_the_template_drops(source, thinking):
    model = with_template(source)
    reused, fresh = model.scheduler(parallel=1), model.scheduler(parallel=1, prefix_bytes=0)
    messages, before = [], []
    for turn in range(5):
        messages.append({"role": "user", "content": f"Continue this list by {turn + 2} items: one, two, three"})
        options = {"messages": list(messages), "thinking": thinking, "max_tokens": 60, "temperature": 0.7}
        options |= {"seed": turn, "horizon": 4}
        thought = f"They want {turn + 2} more, after three comes four. " * 2
        answer = answer_with_thought(reused, thought, **options)
        result, prompt = answer.result, answer.sequence.tokens[: answer.sequence.prompt_len]
        assert result.tokens == answer_with_thought(fresh, thought, **options).result.tokens
        assert result.parts[0].text == thought + "\n"
        shared = next((i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), len(before))
        assert result.stats.cached_tokens == shared
        assert turn == 0 or shared >= len(before) - 10
        before = prompt
        messages.append(message(result.parts))
        assert "They want" not in messages[-1]["content"]


def test_hits_and_misses_past_the_window():
    model = embedded()
    scheduler = model.scheduler(parallel=2)
    ids = model.tokenizer.encode(STORY)
    assert len(ids) > 600
    for length in (len(ids), 550, len(ids), 300, len(ids) - 1):
        reused = write(scheduler, ids[:length])
        assert reused.tokens == model.generate(ids[:length], temperature=0.0, max_tokens=12, ignore_eos=True).tokens
    again = write(scheduler, [*ids, 600])
    assert again.stats.cached_tokens == len(ids)


def test_neighbours_share_a_beginning_and_part():
    model = embedded()
    scheduler = model.scheduler(parallel=3)
    start = model.tokenizer.encode(STORY)[:400]
    write(scheduler, start)
    prompts = [[*start, 600 + i, 700 + i] for i in range(3)]
    answers = [scheduler.submit(p, temperature=1.0, seed=i, max_tokens=30) for i, p in enumerate(prompts)]
    for _ in scheduler:
        pass
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert answer.result.stats.cached_tokens == 400
        assert answer.result.tokens == model.generate(prompt, temperature=1.0, seed=i, max_tokens=30).tokens


@pytest.mark.parametrize("length", [40, 500, 1100])
def test_texts_started_together_read_their_common_beginning_once(length):
    model = embedded()
    story = (model.tokenizer.encode(STORY) * 3)[:length]
    scheduler = model.scheduler(parallel=3)
    prompts = [[*story, *range(500 + 9 * i, 509 + 9 * i)] for i in range(3)]
    answers = [scheduler.submit(p, temperature=1.0, seed=i, max_tokens=20) for i, p in enumerate(prompts)]
    for _ in scheduler:
        pass
    cached = [answer.result.stats.cached_tokens for answer in answers]
    assert cached == [0, length, length] if length > 64 else cached[0] == 0
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert answer.result.tokens == model.generate(prompt, temperature=1.0, seed=i, max_tokens=20).tokens


def test_the_same_prompt_again_and_another_end():
    model = embedded()
    scheduler = model.scheduler(parallel=1)
    ids = model.tokenizer.encode(STORY)[:200]
    cached = [write(scheduler, p).stats.cached_tokens for p in (ids, ids, [*ids[:150], 600, 601], ids[:100])]
    assert cached == [0, 199, 150, 99]


@pytest.mark.parametrize("length", [1, 80, 400, 700])
def test_several_answers_read_their_prompt_once(length):
    model = embedded()
    options = {"temperature": 1.0, "max_tokens": 12, "seed": 4, "ignore_eos": True}
    ids = model.tokenizer.encode(STORY)[:length]
    first, *others = model.generate(ids, n=3, **options)
    assert first.tokens == model.generate(ids, **options).tokens
    assert first.stats.cached_tokens == 0
    for other in others:
        assert other.stats.cached_tokens == length - 1
        assert other.tokens == model.generate(ids, **{**options, "seed": other.seed}).tokens


def test_without_memory_nothing_is_kept():
    scheduler = embedded().scheduler(parallel=1, prefix_bytes=0)
    write(scheduler, STORY)
    assert write(scheduler, STORY).stats.cached_tokens == 0
