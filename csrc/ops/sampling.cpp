// From a row of logits to a token: numerics.md, "From logits to a token", steps 2 to 5; docs/formats.md has the exact
// definition of the noise and of top-p's sums. Nothing here depends on the order of the entries given with `ids`.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "base/odds.h"
#include "base/pool.h"
#include "ops/dispatch.h"
#include "ops/ops.h"

namespace foretoken {

// source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11; ten rounds.
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53u} * c0, b = uint64_t{0xCD9E8D57u} * c2;
        c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(b);
        c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

namespace {

constexpr float kLargestNoise = 22.9f;  // above -log(2^-33)
constexpr int64_t kScan = 128;          // entries that are passed over together

struct Entry {
    float score;
    int32_t id;
};

bool comes_first(const Entry& a, const Entry& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; }

struct Row {
    const float* score;
    const int32_t* id;  // or null
    int64_t len;

    Entry at(int64_t i) const { return {score[i], id ? id[i] : static_cast<int32_t>(i)}; }
};

// The token with the largest score + noise, ties to the lowest id; entries may come in any order.
class Contest {
  public:
    Contest(uint64_t seed, uint64_t position)
        : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
          counter_{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0} {}

    void enter(Entry e) {
        if (e.score + kLargestNoise < best_) return;
        const uint32_t quad = static_cast<uint32_t>(e.id) / 4;
        if (!has_words_ || quad != counter_[2]) {
            counter_[2] = quad;
            philox(counter_, key_, words_);
            has_words_ = true;
        }
        const uint32_t word = words_[e.id % 4];
        // g <= -log(u) < (leading zeros + 1) log 2; the margin covers the rounding of g and of the sum.
        if (e.score + (static_cast<float>(std::countl_zero(word)) + 1.0f) * 0.6932f + 0.001f < best_) return;
        float noise;
        kernels().noise(&word, 1, &noise);
        take(e.score + noise, e.id);
    }

    // All entries of a row with scores >= floor; without ids by 64 at a time.
    void enter(const Row& row, float floor) {
        int64_t i = 0;
        if (!row.id) {
            for (; i + 64 <= row.len; i += 64) enter_64(row.score + i, static_cast<uint32_t>(i / 4), floor);
        }
        for (; i < row.len; ++i) {
            if (row.score[i] >= floor) enter(row.at(i));
        }
    }

    int32_t winner() const { return winner_; }

  private:
    void enter_64(const float* score, uint32_t first_quad, float floor) {
        float top, value[64];
        kernels().largest(score, 64, &top);
        if (top < floor || top + kLargestNoise < best_) return;
        if (kernels().noisy_scores(score, key_, counter_, first_quad, best_ - top, value) < best_) return;
        for (int i = 0; i < 64; ++i) {
            if (score[i] >= floor) take(value[i], static_cast<int32_t>(4 * first_quad) + i);
        }
    }

    void take(float value, int32_t id) {
        if (winner_ < 0 || value > best_ || (value == best_ && id < winner_)) {
            best_ = value;
            winner_ = id;
        }
    }

    uint32_t key_[2], counter_[4], words_[4] = {};
    bool has_words_ = false;
    float best_ = -std::numeric_limits<float>::infinity();
    int32_t winner_ = -1;
};

// A score that `count` entries reach at least, from the largest of many small groups; minus infinity where they are too
// few for that.
float reached(const Row& row, int64_t count) {
    const int64_t groups = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(4 * count)));
    if (count < 1 || groups > row.len / 2) return -std::numeric_limits<float>::infinity();
    std::vector<float> top(row.score, row.score + groups);
    for (int64_t at = groups; at + groups <= row.len; at += groups) {
        for (int64_t i = 0; i < groups; ++i) top[i] = row.score[at + i] > top[i] ? row.score[at + i] : top[i];
    }
    std::nth_element(top.begin(), top.begin() + (count - 1), top.end(), std::greater<float>());
    return top[static_cast<size_t>(count - 1)];
}

// The first `count` entries of the row's order, sorted. One pass: entries collect in a buffer that is cut back to
// `count` whenever it is full, and only entries before the last one kept need a look.
std::vector<Entry> first_entries(const Row& row, int64_t count) {
    count = std::min(count, row.len);
    const size_t kept = static_cast<size_t>(count), limit = std::max<size_t>(4 * kept, 1024);
    std::vector<Entry> found;
    found.reserve(std::min<size_t>(limit, static_cast<size_t>(row.len)));
    float floor = reached(row, count);
    for (int64_t at = 0; at < row.len; at += kScan) {
        const int64_t end = std::min(at + kScan, row.len);
        float top;
        kernels().largest(row.score + at, end - at, &top);
        if (top < floor) continue;
        for (int64_t i = at; i < end; ++i) {
            if (row.score[i] < floor) continue;
            found.push_back(row.at(i));
            if (found.size() == limit) {
                std::nth_element(found.begin(), found.begin() + (count - 1), found.end(), comes_first);
                found.resize(kept);
                floor = found.back().score;
            }
        }
    }
    if (found.size() > kept) {
        std::nth_element(found.begin(), found.begin() + (count - 1), found.end(), comes_first);
        found.resize(kept);
    }
    std::sort(found.begin(), found.end(), comes_first);
    return found;
}

// exp(score) in units of 2^-44: whole numbers, so that sums do not depend on their order. Fewer than 2^19 fit 63 bits.
int64_t mass(float weight) { return static_cast<int64_t>(static_cast<double>(weight) * 0x1p44); }

int64_t total_mass(const float* score, int64_t len) {
    float weight[256];
    int64_t total = 0;
    for (int64_t at = 0; at < len; at += 256) {
        const int64_t n = std::min<int64_t>(256, len - at);
        kernels().exp_row(score + at, n, weight);
        for (int64_t i = 0; i < n; ++i) total += mass(weight[i]);
    }
    return total;
}

// How many of the sorted entries are needed for `share` of `total`; 0 if they do not suffice.
size_t shortest_prefix(const std::vector<Entry>& sorted, double share, int64_t total) {
    const double goal = share * static_cast<double>(total);
    int64_t sum = 0;
    float score[16], weight[16];
    for (size_t at = 0; at < sorted.size(); at += 16) {
        const size_t n = std::min<size_t>(16, sorted.size() - at);
        for (size_t i = 0; i < n; ++i) score[i] = sorted[at + i].score;
        kernels().exp_row(score, static_cast<int64_t>(n), weight);
        for (size_t i = 0; i < n; ++i) {
            sum += mass(weight[i]);
            if (static_cast<double>(sum) >= goal) return at + i + 1;
        }
    }
    return 0;
}

// What top-k and top-p leave of the row.
std::vector<Entry> nucleus(const Row& row, const Sampling& how) {
    const bool has_top_k = how.top_k > 0 && how.top_k < row.len;
    std::vector<Entry> sorted = first_entries(row, has_top_k ? how.top_k : 256);
    if (how.top_p >= 1.0) return sorted;
    int64_t total = 0;
    if (has_top_k) {
        for (const Entry& e : sorted) total += total_mass(&e.score, 1);
    } else {
        total = total_mass(row.score, row.len);
    }
    // Without top-k, sort no more than needed: the nucleus is nearly always short.
    size_t kept = shortest_prefix(sorted, how.top_p, total);
    while (kept == 0 && !has_top_k && static_cast<int64_t>(sorted.size()) < row.len) {
        sorted = first_entries(row, static_cast<int64_t>(sorted.size()) * 8);
        kept = shortest_prefix(sorted, how.top_p, total);
    }
    if (kept) sorted.resize(kept);
    return sorted;
}

// The largest of some entries, and which of them is the first such.
struct Top {
    float value = 0.0f;
    int64_t at = -1;
    bool is_ok = true;  // no NaN among them

    void join(const Top& later) {
        is_ok &= later.is_ok;
        if (later.value > value) {
            value = later.value;
            at = later.at;
        }
    }
};

Top top_of(const float* x, int64_t first, int64_t last) {
    constexpr int64_t kPiece = 1024;  // only one of them is looked through a second time
    Top found, piece;
    for (int64_t from = first; from < last; from += kPiece) {
        piece.is_ok = kernels().largest(x + from, std::min(kPiece, last - from), &piece.value);
        piece.at = from;
        if (from == first) {
            found = piece;
        } else {
            found.join(piece);
        }
    }
    while (found.is_ok && x[found.at] != found.value) ++found.at;
    return found;
}

// All threads share a row as long as a vocabulary, for one is read for every token. This one reads it alone while
// another has the pool, which may last a whole pass.
Top top_of_row(const Floats& logits) {
    constexpr int64_t kPart = 1 << 15, kMaxParts = (1 << 19) / kPart;
    if (logits.len <= kPart) return top_of(logits.data, 0, logits.len);
    const PoolHold hold(std::try_to_lock);
    if (!PoolHold::is_held()) return top_of(logits.data, 0, logits.len);
    Session session;
    Top part[kMaxParts];
    const int64_t parts = (logits.len - 1) / kPart + 1;
    session.each(parts, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            part[i] = top_of(logits.data, i * kPart, std::min((i + 1) * kPart, logits.len));
        }
    });
    for (int64_t i = 1; i < parts; ++i) part[0].join(part[i]);
    return part[0];
}

int32_t lowest_id_of(const Floats& logits, const Ids& ids, float value) {
    int32_t best = INT32_MAX;
    for (int64_t i = 0; i < logits.len; ++i) {
        if (logits.data[i] == value) best = std::min(best, ids.data[i]);
    }
    return best;
}

void require_sampling(const Floats& logits, const Ids& ids, const Sampling& how) {
    require(logits.len > 0 && logits.len < (1 << 19),
            [&] { return "logits: length " + number(logits.len) + ", expected 1 to 2^19 - 1"; });
    if (ids.data) {
        require_len("ids", ids, logits.len);
        require(*std::min_element(ids.data, ids.data + ids.len) >= 0,
                [] { return std::string("ids: a negative token id"); });
    }
    require(how.temperature >= 0.0 && how.temperature <= 3e38,
            [] { return std::string("temperature: expected a number from 0 on"); });
    require(how.top_k >= 0, [&] { return "top_k: " + number(how.top_k) + ", expected 0 (off) or more"; });
    require(how.top_p > 0.0 && how.top_p <= 1.0, [] { return std::string("top_p: expected 0 < p <= 1 (off)"); });
    require(how.min_p >= 0.0 && how.min_p <= 1.0, [] { return std::string("min_p: expected 0 (off) to 1"); });
}

}  // namespace

int32_t sample_row(Floats logits, Ids ids, const Sampling& how) {
    require_sampling(logits, ids, how);
    const FloatEnvironment environment;
    const Top top = top_of_row(logits);
    const float largest = top.value;
    require(top.is_ok, [] { return std::string("logits: a NaN"); });
    require(std::isfinite(largest),
            [] { return std::string("logits: the largest is infinite, so no token can be drawn"); });
    if (how.temperature < 1e-5) return ids.data ? lowest_id_of(logits, ids, largest) : static_cast<int32_t>(top.at);

    static thread_local std::vector<float> scores;
    scores.resize(static_cast<size_t>(logits.len));
    kernels().scores(logits.data, logits.len, largest, static_cast<float>(how.temperature), scores.data());
    const Row row{scores.data(), ids.data, logits.len};
    const float minus_infinity = -std::numeric_limits<float>::infinity();
    float floor = minus_infinity;
    if (how.min_p > 0.0) {
        const float min_p = static_cast<float>(how.min_p);
        kernels().math("log", &min_p, 1, &floor);
    }
    Contest contest(how.seed, how.position);
    if ((how.top_k > 0 && how.top_k < row.len) || how.top_p < 1.0) {
        for (const Entry& e : nucleus(row, how)) {
            if (e.score >= floor) contest.enter(e);
        }
    } else {
        contest.enter(row.at(top.at));  // a likely winner, so that most others can be passed over
        contest.enter(row, floor);
    }
    return contest.winner();
}

// Of a draft token that was drawn with a chance.
static double chance_to_stay(const Draw& how, double chance) {
    const double at_depth = how.depth_weight * std::log(1.0 + static_cast<double>(how.depth));
    return logistic(how.constant + how.odds_weight * log_odds(chance) + at_depth);
}

void draw(Floats logits, Ids ids, Draw* how, int32_t* token, Vector<int32_t> drawn, Vector<float> chances) {
    require_len("chances", chances, drawn.len);
    require(how->count >= 0 && how->count < drawn.len,
            [&] { return "drawn: room for " + number(drawn.len) + " tokens, all taken"; });
    const int32_t found =
        sample_row(logits, ids, {how->temperature, how->top_k, how->top_p, how->min_p, how->seed, how->position});
    const int64_t at = ids.data ? std::find(ids.data, ids.data + ids.len, found) - ids.data : found;
    const FloatEnvironment environment;
    const float largest = top_of_row(logits).value;
    float weight;
    static thread_local std::vector<float> scores;
    scores.resize(static_cast<size_t>(logits.len));
    kernels().scores(logits.data, logits.len, largest, 1.0f, scores.data());
    kernels().exp_row(&scores[static_cast<size_t>(at)], 1, &weight);
    const double total = static_cast<double>(total_mass(scores.data(), logits.len)) * 0x1p-44;
    *token = drawn.data[how->count] = found;
    const float chance = chances.data[how->count] = static_cast<float>(static_cast<double>(weight) / total);
    if (how->least > 0.0) how->survival *= chance_to_stay(*how, static_cast<double>(chance));
    ++how->position;
    ++how->count;
    ++how->depth;
}

void top_clusters(Floats scores, Vector<int32_t> out) {
    require(out.len >= 0 && out.len <= scores.len && scores.len <= INT32_MAX,
            [&] { return "count: " + number(out.len) + ", expected 0 to " + number(scores.len); });
    float largest;
    require(scores.len == 0 || kernels().largest(scores.data, scores.len, &largest),
            [] { return std::string("scores: a NaN"); });
    if (out.len == 0) return;
    const std::vector<Entry> found = first_entries({scores.data, nullptr, scores.len}, out.len);
    for (int64_t i = 0; i < out.len; ++i) out.data[i] = found[static_cast<size_t>(i)].id;
    std::sort(out.data, out.data + out.len);
}

}  // namespace foretoken
