#include "text/chances.h"

namespace foretoken {
namespace {

constexpr double kTextSteps = 50.0;      // the offset of a text soon follows about so many of its latest tokens
constexpr double kLeastVariance = 0.12;  // of an outcome, so that one surprise does not throw an offset out
constexpr double kMostOffset = 6.0;

const std::array<double, TextChances::kDepths> log_depth = [] {
    std::array<double, TextChances::kDepths> found{};
    for (size_t depth = 0; depth < found.size(); ++depth) found[depth] = std::log(1.0 + static_cast<double>(depth));
    return found;
}();

void move(double& offset, double step, double outcomes) {
    offset = std::clamp(offset + step / std::min(outcomes, kTextSteps), -kMostOffset, kMostOffset);
}

}  // namespace

const std::vector<double>& TextChances::of(const std::vector<double>& confidence, double constant, double odds_weight,
                                           double depth_weight) {
    const size_t length = std::min(confidence.size(), kDepths);
    odds_.resize(length);
    chances_.resize(length);
    for (size_t depth = 0; depth < length; ++depth) {
        odds_[depth] = log_odds(confidence[depth]);
        const double at_depth = depth_weight * log_depth[depth] + offsets_[depth];
        chances_[depth] = logistic(constant + odds_weight * odds_[depth] + at_depth);
    }
    return chances_;
}

void TextChances::add(size_t depth, bool is_kept, double trust, Errors& errors) {
    const double chance = chances_[depth], error = (is_kept ? 1.0 : 0.0) - chance;
    const double step = 0.5 * error / std::max(chance * (1.0 - chance), kLeastVariance);
    move(offset_, step, ++count_ + trust);
    move(offsets_[depth], step, ++counts_[depth] + trust);
    errors[0] += error;
    errors[1] += error * odds_[depth];
    errors[2] += error * log_depth[depth];
}

}  // namespace foretoken
