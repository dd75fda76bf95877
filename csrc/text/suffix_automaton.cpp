#include "text/suffix_automaton.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace foretoken {
namespace {

// 0 for a match of one token, 1 for two, then one per power of two; longer ones are alike.
int32_t length_cell(int32_t length) {
    const auto cell = static_cast<int32_t>(std::bit_width(static_cast<uint32_t>(length - 1)));
    return std::min(cell, SuffixAutomaton::kLengthCells - 1);
}

}  // namespace

SuffixAutomaton::SuffixAutomaton(std::vector<float> rates, float step, int64_t window, std::vector<int32_t> stops)
    : rates_(std::move(rates)), step_(step), window_(window), stops_(std::move(stops)) {
    add_state(0, 0);
}

void SuffixAutomaton::forget() {
    states_.clear();
    more_.clear();
    size_ = last_ = 0;
    place_ = {};
    add_state(0, 0);
}

void SuffixAutomaton::push(int32_t token) {
    if (const std::optional<Guess> found = guess(place_)) {  // how good would it have been?
        float& rate = rates_[static_cast<size_t>(found->cell)];
        rate += step_ * (static_cast<float>(found->token == token) - rate);
    }
    ++size_;
    const int32_t added = add_state(size_, 1);
    int32_t state = last_, target = -1;
    for (; state >= 0; state = states_[state].link) {
        if (states_[state].token < 0) {
            states_[state].token = token;
            states_[state].target = added;
        } else if (states_[state].token == token) {
            target = states_[state].target;
            break;
        } else {
            const auto [at, is_new] = others_of(state).try_emplace(token, added);
            if (!is_new) {
                target = at->second;
                break;
            }
        }
    }
    int32_t link = state < 0 ? 0 : whole(state, token, target);
    states_[added].link = link;
    last_ = added;
    place_ = {link, states_[link].length};
    for (int32_t i = 0; i < kCounted && link > 0; ++i, link = states_[link].link) {  // the text's ends occur once more
        ++states_[link].count;
        states_[link].end = size_;
    }
}

std::optional<SuffixAutomaton::Guess> SuffixAutomaton::guess(Place place) const {
    int32_t state = place.state, length = place.length;
    while (states_[state].token < 0 && state) {  // the text's own end: go on from where that occurred before
        state = states_[state].link;
        length = states_[state].length;
    }
    if (!length) return std::nullopt;
    int32_t token = states_[state].token, target = states_[state].target, cell = length_cell(length);
    if (const Children* others = children(state)) {
        if (others->size() >= kMostChildren) return std::nullopt;
        cell += kLengthCells;
        for (const auto& [other, its_target] : *others) {
            const int32_t more = states_[its_target].count - states_[target].count;
            if (more > 0 || (!more && states_[its_target].end > states_[target].end)) {
                token = other;
                target = its_target;
            }
        }
    }
    return Guess{token, cell, {target, length + 1}};
}

int32_t SuffixAutomaton::least_length(float chance) const {
    size_t cell = 0;
    while (cell < kLengthCells && std::max(rates_[cell], rates_[cell + kLengthCells]) < chance) ++cell;
    if (cell == kLengthCells) return INT32_MAX;
    return cell ? (1 << (cell - 1)) + 1 : 1;
}

bool SuffixAutomaton::is_stop(int32_t token) const {
    return std::find(stops_.begin(), stops_.end(), token) != stops_.end();
}

float SuffixAutomaton::next_chance() const {
    const std::optional<Guess> found = guess(place_);
    return found && !is_stop(found->token) ? rates_[static_cast<size_t>(found->cell)] : 0.0f;
}

std::vector<SuffixAutomaton::Guess> SuffixAutomaton::follow(Place place, int64_t limit, float survival,
                                                            float least) const {
    std::vector<Guess> found;
    while (static_cast<int64_t>(found.size()) < limit) {
        const std::optional<Guess> next = guess(place);
        if (!next || is_stop(next->token)) break;
        survival *= rates_[static_cast<size_t>(next->cell)];
        if (survival < least) break;
        found.push_back(*next);
        place = next->place;
    }
    return found;
}

SuffixAutomaton::Place SuffixAutomaton::moved(Place place, int32_t token) const {
    int32_t state = place.state, length = place.length;
    for (;;) {
        if (states_[state].token == token) return {states_[state].target, length + 1};
        if (const Children* others = children(state)) {
            const auto found = others->find(token);
            if (found != others->end()) return {found->second, length + 1};
        }
        state = states_[state].link;
        if (state < 0) return {};
        length = states_[state].length;
    }
}

int32_t SuffixAutomaton::add_state(int32_t length, int32_t count) {
    states_.push_back({.length = length, .count = count, .end = size_});
    return static_cast<int32_t>(states_.size()) - 1;
}

// `target`, or where it also stands for longer strings a copy of it that stands for those of `state` only.
int32_t SuffixAutomaton::whole(int32_t state, int32_t token, int32_t target) {
    const int32_t length = states_[state].length + 1;
    if (states_[target].length == length) return target;
    const auto copy = static_cast<int32_t>(states_.size());
    State same = states_[target];
    same.length = length;
    if (same.more >= 0) {
        more_.push_back(more_[same.more]);
        same.more = static_cast<int32_t>(more_.size()) - 1;
    }
    states_.push_back(same);
    states_[target].link = copy;
    for (; state >= 0; state = states_[state].link) {
        if (states_[state].token == token) {
            if (states_[state].target != target) break;
            states_[state].target = copy;
            continue;
        }
        if (states_[state].more < 0) break;
        Children& others = more_[states_[state].more];
        const auto found = others.find(token);
        if (found == others.end() || found->second != target) break;
        found->second = copy;
    }
    return copy;
}

SuffixAutomaton::Children& SuffixAutomaton::others_of(int32_t state) {
    if (states_[state].more < 0) {
        more_.emplace_back();
        states_[state].more = static_cast<int32_t>(more_.size()) - 1;
    }
    return more_[states_[state].more];
}

const SuffixAutomaton::Children* SuffixAutomaton::children(int32_t state) const {
    const int32_t more = states_[state].more;
    return more < 0 ? nullptr : &more_[more];
}

}  // namespace foretoken
