// A suffix automaton of one text, online: every substring of it, and how the text went on behind each.
// Source: Blumer et al. 1985. What it is for: foretoken/drafters/suffix.py.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

namespace foretoken {

// State 0 is the empty string; states number at most twice the tokens. Most go on with one token only; the others
// have a map beside them.
class SuffixAutomaton {
  public:
    static constexpr int32_t kCounted = 16;      // ends of the text counted per token, from the longest: shorter ones
                                                 // follow nearly every token anyway
    static constexpr size_t kMostChildren = 16;  // a place that so many tokens followed says nothing about the next
    static constexpr int32_t kLengthCells = 6;   // of the length of a match: 1, 2, 3-4, 5-8, 9-16, more

    // A state, and the length of the match that it stands for.
    struct Place {
        int32_t state = 0, length = 0;
    };

    // The likeliest next token at a place, its cell in `rates`, and the place behind it.
    struct Guess {
        int32_t token, cell;
        Place place;
    };

    // rates: the chance of a guess by the length of the match, where no other token followed it and, behind those,
    // where some did; 2 * kLengthCells. step: of their moving averages. window: tokens that are surely remembered;
    // twice as many are kept before the older half is forgotten. stops: tokens that end a text, which nobody need
    // guess.
    SuffixAutomaton(std::vector<float> rates, float step, int64_t window, std::vector<int32_t> stops);

    // Takes in what a text of `length` tokens has more than it had at the last call; token_at(i) is its token i and may
    // throw. A text that is shorter, or that was not taken in whole, begins anew.
    template <class TokenAt>
    void observe(int64_t length, const TokenAt& token_at) {
        const bool is_longer = is_whole_ && length >= num_seen_ && size_ + (length - num_seen_) <= 2 * window_;
        is_whole_ = false;
        if (!is_longer) {
            forget();
            num_seen_ = length > window_ ? length - window_ : 0;
        }
        for (; num_seen_ < length; ++num_seen_) push(token_at(num_seen_));
        is_whole_ = true;
    }

    // Whether the last `match` tokens of a text of `length` may have occurred before: a match grows by one with each
    // token, and its last two must have stood together before. Costs next to nothing, for it looks at pairs only.
    template <class TokenAt>
    bool may_match(int64_t length, int64_t match, const TokenAt& token_at) {
        const bool is_pair_known = pairs_.take_in(length, token_at);
        if (match > 1 && !is_pair_known) return false;
        return !is_whole_ || length < num_seen_ || place_.length + (length - num_seen_) >= match;
    }

    // The shortest match behind which a guess is right with such a chance, as things are now.
    int32_t least_length(float chance) const;

    std::optional<Guess> guess(Place place) const;
    // The chance that the text goes on as guessed; 0 where nothing is guessed, or that it ends.
    float next_chance() const;
    // Up to `limit` guesses from a place on and up to the end of a text, as long as all of them together are right with
    // a chance of `least`; `survival` is the chance that the place is reached.
    std::vector<Guess> follow(Place place, int64_t limit, float survival, float least) const;
    Place moved(Place place, int32_t token) const;  // the longest end of (the place's string + token) in the text

    int32_t size() const { return size_; }
    bool has(Place place) const {
        return place.state >= 0 && static_cast<size_t>(place.state) < states_.size() && place.length >= 0 &&
               place.length <= states_[static_cast<size_t>(place.state)].length;
    }
    Place place() const { return place_; }  // the longest end of the text that occurred before
    const std::vector<float>& rates() const { return rates_; }

  private:
    using Children = std::unordered_map<int32_t, int32_t>;

    struct State {
        int32_t link = -1;    // the state of the longest shorter end that occurs elsewhere too
        int32_t length = 0;   // of its longest string
        int32_t count = 0;    // how often its strings occur
        int32_t end = 0;      // where the newest of them ends
        int32_t token = -1;   // how it goes on first, -1 if it does not
        int32_t target = -1;  // and the state behind that
        int32_t more = -1;    // which of `more_` holds how else it goes on
    };

    // Which pairs of tokens have stood next to each other; of some it wrongly says yes.
    class Pairs {
      public:
        // Whether the last two of `length` tokens had before; takes in those since the last call.
        template <class TokenAt>
        bool take_in(int64_t length, const TokenAt& token_at) {
            if (length < num_seen_) *this = {};
            for (; num_seen_ < length; ++num_seen_) add(token_at(num_seen_));
            return is_last_known_;
        }

      private:
        static constexpr int kBits = 16;

        void add(int32_t token) {
            const uint64_t pair = static_cast<uint64_t>(last_) << 32 | static_cast<uint32_t>(token);
            const uint64_t at = pair * 0x9e3779b97f4a7c15u >> (64 - kBits), bit = uint64_t{1} << at % 64;
            uint64_t& word = words_[at / 64];
            is_last_known_ = word & bit;
            word |= bit;
            last_ = static_cast<uint32_t>(token);
        }

        std::array<uint64_t, (1 << kBits) / 64> words_{};
        int64_t num_seen_ = 0;
        uint32_t last_ = 0;  // token; behind the first one the pair is only more likely to be known
        bool is_last_known_ = false;
    };

    bool is_stop(int32_t token) const;
    void push(int32_t token);
    void forget();
    int32_t add_state(int32_t length, int32_t count);
    int32_t whole(int32_t state, int32_t token, int32_t target);
    Children& others_of(int32_t state);             // how else it goes on; makes room for it
    const Children* children(int32_t state) const;  // the same, null where it does not

    std::vector<float> rates_;
    const float step_;
    const int64_t window_;
    const std::vector<int32_t> stops_;
    int64_t num_seen_ = 0;  // tokens of the text; the first ones may be forgotten
    bool is_whole_ = true;
    int32_t size_ = 0, last_ = 0;
    Place place_;
    std::vector<State> states_;
    std::vector<Children> more_;
    Pairs pairs_;
};

}  // namespace foretoken
