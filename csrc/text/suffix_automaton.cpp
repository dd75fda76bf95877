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

SuffixAutomaton::SuffixAutomaton(std::vector<float> rates, float step, int64_t window)
    : rates_(std::move(rates)), step_(step), window_(window) {
    add_state(0, 0);
}

void SuffixAutomaton::forget() {
    for (std::vector<int32_t>* of_states : {&link_, &length_, &count_, &end_, &token_, &target_}) of_states->clear();
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
    for (; state >= 0; state = link_[state]) {
        if (token_[state] < 0) {
            token_[state] = token;
            target_[state] = added;
        } else if (token_[state] == token) {
            target = target_[state];
            break;
        } else {
            const auto [at, is_new] = more_[state].try_emplace(token, added);
            if (!is_new) {
                target = at->second;
                break;
            }
        }
    }
    int32_t link = state < 0 ? 0 : whole(state, token, target);
    link_[added] = link;
    last_ = added;
    place_ = {link, length_[link]};
    for (int32_t i = 0; i < kCounted && link > 0; ++i, link = link_[link]) {  // one more occurrence of the text's ends
        ++count_[link];
        end_[link] = size_;
    }
}

std::optional<SuffixAutomaton::Guess> SuffixAutomaton::guess(Place place) const {
    int32_t state = place.state, length = place.length;
    while (token_[state] < 0 && state) {  // the text's own end: go on from where that occurred before
        state = link_[state];
        length = length_[state];
    }
    if (!length) return std::nullopt;
    int32_t token = token_[state], target = target_[state], cell = length_cell(length);
    if (const Children* others = children(state)) {
        if (others->size() >= kMostChildren) return std::nullopt;
        cell += kLengthCells;
        for (const auto& [other, its_target] : *others) {
            const int32_t more = count_[its_target] - count_[target];
            if (more > 0 || (!more && end_[its_target] > end_[target])) {
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

std::vector<SuffixAutomaton::Guess> SuffixAutomaton::follow(Place place, int64_t limit, float survival,
                                                            float least) const {
    std::vector<Guess> found;
    while (static_cast<int64_t>(found.size()) < limit) {
        const std::optional<Guess> next = guess(place);
        if (!next) break;
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
        if (token_[state] == token) return {target_[state], length + 1};
        if (const Children* others = children(state)) {
            const auto found = others->find(token);
            if (found != others->end()) return {found->second, length + 1};
        }
        state = link_[state];
        if (state < 0) return {};
        length = length_[state];
    }
}

int32_t SuffixAutomaton::add_state(int32_t length, int32_t count) {
    const auto added = static_cast<int32_t>(link_.size());
    link_.push_back(-1);
    length_.push_back(length);
    count_.push_back(count);
    end_.push_back(size_);
    token_.push_back(-1);
    target_.push_back(-1);
    return added;
}

// `target`, or where it also stands for longer strings a copy of it that stands for those of `state` only.
int32_t SuffixAutomaton::whole(int32_t state, int32_t token, int32_t target) {
    const int32_t length = length_[state] + 1;
    if (length_[target] == length) return target;
    const int32_t copy = add_state(length, count_[target]);
    end_[copy] = end_[target];
    token_[copy] = token_[target];
    target_[copy] = target_[target];
    if (const Children* others = children(target)) more_[copy] = Children(*others);
    link_[copy] = link_[target];
    link_[target] = copy;
    for (; state >= 0; state = link_[state]) {
        if (token_[state] == token) {
            if (target_[state] != target) break;
            target_[state] = copy;
            continue;
        }
        const auto others = more_.find(state);
        if (others == more_.end()) break;
        const auto found = others->second.find(token);
        if (found == others->second.end() || found->second != target) break;
        found->second = copy;
    }
    return copy;
}

const SuffixAutomaton::Children* SuffixAutomaton::children(int32_t state) const {
    const auto found = more_.find(state);
    return found == more_.end() ? nullptr : &found->second;
}

}  // namespace foretoken
