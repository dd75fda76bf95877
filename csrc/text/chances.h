// How likely the draft tokens of one text are to be kept, and what is learned of that in every round: the inner loops
// of foretoken/horizon/chance.py, which says what they are for.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/odds.h"

namespace foretoken {

class TextChances {
  public:
    static constexpr size_t kDepths = 16;

    // Sums of the errors of a draft's chances, plain, by log-odds and by log-depth, for the weights of its drafter.
    using Errors = std::array<double, 3>;

    struct Known {
        size_t count;   // draft tokens whose fate is known
        bool is_right;  // all of them
        double offset;  // of all depths, now
        Errors errors;  // of the tokens that this call compared
    };

    // The chance of each token of a draft, given those before it, of at most kDepths.
    const std::vector<double>& of(const std::vector<double>& confidence, double constant, double odds_weight,
                                  double depth_weight);

    // Compares the draft of the last call of `of` with what the target has written; of its `length` tokens `known` were
    // compared before. is_right(i) says whether token i is what was written, and may throw. trust: outcomes that the
    // weights count for beside those of the text.
    template <class IsRight>
    Known learn(size_t known, size_t length, double trust, const IsRight& is_right) {
        length = std::min(length, chances_.size());
        Errors errors{};
        bool is_kept = true;
        while (known < length && is_kept) {
            is_kept = is_right(known);
            add(known++, is_kept, trust, errors);
        }
        return {known, is_kept, offset_, errors};
    }

  private:
    void add(size_t depth, bool is_kept, double trust, Errors& errors);

    double offset_ = 0.0,
           count_ = 0.0;  // of all depths: for the log-odds of a chance, and outcomes it was learned from
    std::array<double, kDepths> offsets_{}, counts_{};  // beside them, by depth
    std::vector<double> odds_, chances_;                // of the last draft
};

}  // namespace foretoken
