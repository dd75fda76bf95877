import json

import pytest

from foretoken.stats import Stats


def recorded() -> Stats:
    stats = Stats(prompt_tokens=5, completion_tokens=8)
    stats.record_round(horizon=4, drafted=4, accepted=4, drafter="mtp")
    stats.record_round(horizon=4, drafted=4, accepted=0, drafter="mtp")
    stats.record_round(horizon=4, drafted=0, accepted=0, fallback="budget")
    stats.add_times(prefill_s=1.0, draft_s=0.5, verify_s=1.0)
    stats.add_times(other_s=0.5)
    return stats


def test_counts_of_three_rounds():
    figures = recorded().as_dict()
    assert figures["rounds"] == 3
    assert figures["drafted"] == 8
    assert figures["accepted"] == 4
    assert figures["accepted_batches"] == 1
    assert figures["rejections"] == 1
    assert figures["fallbacks"] == {"budget": 1}
    assert figures["drafted_by_position"] == [2, 2, 2, 2]
    assert figures["accepted_by_position"] == [1, 1, 1, 1]
    assert figures["horizon_rounds"] == {"4": 3}
    assert figures["drafter_rounds"] == {"mtp": 2}


def test_first_token_belongs_to_no_round():
    stats = recorded()
    assert stats.completion_tokens == 1 + stats.rounds + stats.accepted
    assert stats.tokens_per_round == pytest.approx(7 / 3)


def test_rates_and_times():
    stats = recorded()
    assert stats.acceptance_rate == 0.5
    assert stats.rejection_rate == 0.5
    assert stats.tok_per_s == pytest.approx(7 / 2.0)
    assert stats.speedup is None
    stats.plain_tok_per_s = 1.75
    assert stats.speedup == pytest.approx(2.0)


def test_nothing_counted_gives_none_not_a_division_by_zero():
    figures = Stats().as_dict()
    for name in ("acceptance_rate", "rejection_rate", "tokens_per_round", "tok_per_s", "plain_tok_per_s", "speedup"):
        assert figures[name] is None
    assert figures["advice"] == []


def test_as_dict_is_json_and_a_copy():
    stats = recorded()
    figures = stats.as_dict()
    assert json.loads(json.dumps(figures)) == figures
    figures["accepted_by_position"].append(9)
    figures["fallbacks"]["x"] = 1
    assert stats.accepted_by_position == [1, 1, 1, 1]
    assert stats.fallbacks == {"budget": 1}


def test_stop_inside_the_last_round_leaves_the_dropped_tokens_out():
    stats = Stats()
    stats.record_round(horizon=4, drafted=4, accepted=3, drafter="mtp")
    stats.cut_last_round(1)
    assert (stats.accepted, stats.accepted_by_position, stats.accepted_batches) == (2, [1, 1, 0, 0], 1)
    stats.cut_last_round(2)
    assert (stats.accepted, stats.accepted_by_position, stats.accepted_batches) == (0, [0, 0, 0, 0], 0)
    assert (stats.drafted, stats.drafted_by_position, stats.rejections) == (1, [0, 0, 0, 1], 1)  # and that was wrong
    stats.cut_last_round(0)
    assert stats.accepted == 0


def test_merge_adds_counts_tables_and_positions_of_different_length():
    stats, other = recorded(), Stats(prompt_tokens=2, completion_tokens=3)
    other.record_round(horizon=6, drafted=6, accepted=1, drafter="mtp")
    stats.merge(other)
    assert stats.prompt_tokens == 7
    assert stats.completion_tokens == 11
    assert stats.drafted_by_position == [3, 3, 3, 3, 1, 1]
    assert stats.accepted_by_position == [2, 1, 1, 1, 0, 0]
    assert stats.horizon_rounds == {4: 3, 6: 1}
    assert stats.drafter_rounds == {"mtp": 3}


def test_merge_keeps_the_plain_speed_only_where_both_know_it():
    stats, other = recorded(), recorded()
    stats.plain_tok_per_s = 7.0
    stats.merge(other)
    assert stats.plain_tok_per_s is None
    empty = Stats()
    known = recorded()
    known.plain_tok_per_s = 7.0
    empty.merge(known)
    assert empty.plain_tok_per_s == pytest.approx(7.0)


def drafted(*accepted: int, draft_s: float) -> Stats:
    """A round at horizon 4 for each count of accepted tokens; a round takes a second, guessing that share of it."""
    stats = Stats()
    for kept in accepted:
        stats.record_round(horizon=4, drafted=4, accepted=kept, drafter="mtp")
        stats.add_times(draft_s=draft_s, verify_s=1 - draft_s)
    return stats


def test_a_shorter_horizon_is_advised_once_there_is_enough_to_tell():
    assert drafted(*[2] * 19, draft_s=0.1).advice == []
    (sentence,) = drafted(*[2] * 20, draft_s=0.1).advice
    assert "rejected 50%" in sentence
    assert "draft token 4 of a round 0 times in 20" in sentence


def test_a_shorter_horizon_is_advised_only_where_the_last_draft_token_costs_more_than_it_brings():
    """20 rounds, 60 tokens in 20 s; without draft token 4 one of them is lost: 59 tokens in 20 s less its guessing."""
    accepted = [4, *[2] * 18, 0]
    assert sum(accepted) + 20 == 60
    for draft_s, is_faster in ((0.06, False), (0.07, True)):  # a quarter of it for token 4: 0.3 s and 0.35 s of 20 s
        assert (59 / (20 - 20 * draft_s / 4) > 60 / 20) == is_faster
        assert (drafted(*accepted, draft_s=draft_s).advice != []) == is_faster


def test_nothing_is_advised_where_drafting_pays_or_no_time_was_measured():
    assert drafted(*[4, 4, 2, 0] * 10, draft_s=0.2).advice == []  # 37% rejected, 3.5 tokens a round
    assert drafted(*[2] * 40, draft_s=0.0).advice == []


def test_advice_names_a_slow_down_once_there_is_enough_to_tell():
    for rounds, is_said in ((19, False), (20, True)):
        stats = drafted(*[4] * rounds, draft_s=0.0)  # 5 tokens a second
        stats.plain_tok_per_s = 7.0
        assert any("horizon 0" in sentence for sentence in stats.advice) == is_said


def test_a_few_drafts_of_a_text_that_was_written_plainly_say_nothing_of_drafting():
    """`auto` tries drafts, and parks: what the first ones cost is no reason to change anything."""
    for guesses, is_said in ((19, False), (20, True)):
        stats = drafted(0, 0, draft_s=0.5)
        for number in range(60):
            guessed = 2 if number < guesses - 2 else 0
            stats.record_round(horizon=0, drafted=0, accepted=0, fallback="horizon-0", guessed=guessed)
        stats.add_times(verify_s=60.0)
        stats.plain_tok_per_s = 2.0
        assert any("horizon 0" in sentence for sentence in stats.advice) == is_said


def test_a_drafter_that_is_never_right_gets_one_sentence_with_the_likely_causes():
    stats = drafted(*[0] * 30, draft_s=0.3)
    stats.plain_tok_per_s = 7.0
    (sentence,) = stats.advice
    assert "almost no draft token" in sentence and "another model" in sentence


def test_one_is_named_by_what_was_found_out_before_where_this_answer_has_too_few_drafts():
    stats = drafted(0, 0, draft_s=0.3)
    assert stats.advice == []
    stats.useless = ("mtp",)
    merged = Stats()
    merged.merge(stats)
    assert "another model" in stats.advice[0] and merged.advice == stats.advice


def test_a_text_that_does_not_repeat_itself_is_no_wrong_drafter():
    stats = Stats()
    for _ in range(8):
        stats.record_round(horizon=4, drafted=4, accepted=0, drafter="suffix")
    (sentence,) = stats.advice
    assert "does not come again" in sentence and "model" not in sentence


def test_nothing_is_shorter_than_one_draft_token_but_plain_decoding():
    stats = Stats()
    for number in range(40):
        stats.record_round(horizon=1, drafted=1, accepted=number % 3 == 0, drafter="mtp")
        stats.add_times(draft_s=0.6, verify_s=0.4)
    assert stats.advice == []
    stats.plain_tok_per_s = 2.0
    assert [("horizon 0" in sentence) for sentence in stats.advice] == [True]


def test_where_plain_decoding_is_faster_no_shorter_horizon_is_advised():
    stats = Stats(plain_tok_per_s=100.0)
    for number in range(40):
        stats.record_round(horizon=4, drafted=4, accepted=2 * (number % 2), drafter="mtp")
        stats.add_times(draft_s=0.6, verify_s=0.4)
    (sentence,) = stats.advice
    assert "horizon 0 is faster" in sentence
    stats.plain_tok_per_s = 0.1
    (sentence,) = stats.advice
    assert "a shorter horizon" in sentence


def test_together_they_know_of_a_drafter_that_failed():
    both = Stats()
    both.merge(Stats(drafter_error="OSError: gone"))
    both.merge(Stats())
    assert both.drafter_error == "OSError: gone" and "failed" in both.advice[0]
