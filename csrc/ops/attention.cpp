// Cache pages: appending rows, and attention over them.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/cpu.h"
#include "base/pool.h"
#include "ops/dispatch.h"
#include "ops/ops.h"

namespace foretoken {
namespace {

constexpr int kPageLen = 64, kChunkLen = 256;
constexpr int64_t kMostRuns = 64;            // of a thread: units differ, a whole chunk or its first few keys
constexpr int64_t kScratchFloats = 4 << 20;  // chunk results held at once,
constexpr int64_t kLeastRows = 8;            // but of so many rows at least
constexpr int64_t kFewQueries = 16;          // heads of several rows that win nothing by sharing a chunk
constexpr int64_t kFewUnits = 2;             // for a thread: from so many on they spread well enough

// Up to so many numbers a thread is done before others have begun: of keys, over all query heads, and of chunk results.
constexpr int64_t kSmallKeys = 3 << 14, kSmallParts = 1 << 13;

struct View {
    const Cache& cache;

    int64_t page_len() const { return kPageLen * cache.head_len; }
    uint16_t* keys(int64_t page, int64_t head) const {
        return cache.keys + (page * cache.kv_heads + head) * page_len();
    }
    uint16_t* values(int64_t page, int64_t head) const {
        return cache.values + (page * cache.kv_heads + head) * page_len();
    }
    const int32_t* table(int64_t row) const { return cache.tables.row(cache.row_segment.data[row]); }
};

void require_segments(const Cache& c, int64_t rows) {
    require_len("row_segment", c.row_segment, rows);
    for (int64_t t = 0; t < rows; ++t) {
        require(c.row_segment.data[t] >= 0 && c.row_segment.data[t] < c.tables.rows, [&] {
            return "row_segment[" + number(t) + "] is " + number(c.row_segment.data[t]) + ", expected 0 to " +
                   number(c.tables.rows - 1);
        });
    }
}

// Every position of [begin, end) of `row` has a page.
void require_pages(const Cache& c, int64_t row, int64_t begin, int64_t end) {
    const int32_t segment = c.row_segment.data[row];
    require(begin >= 0 && end <= c.tables.cols * kPageLen, [&] {
        return "row " + number(row) + " needs positions " + number(begin) + " to " + number(end - 1) +
               ", its table has room for 0 to " + number(c.tables.cols * kPageLen - 1);
    });
    for (int64_t slot = begin / kPageLen; slot * kPageLen < end; ++slot) {
        const int32_t page = c.tables.row(segment)[slot];
        require(page >= 0 && page < c.pages, [&] {
            return "tables[" + number(segment) + ", " + number(slot) + "] is " + number(page) + ", but row " +
                   number(row) + " needs that page; there are " + number(c.pages);
        });
    }
}

// What one slice of rows shares: rows [first, last), the chunks they see, and where their results lie.
struct Slice {
    const FloatRows& q;
    const View view;
    const Ids& begin;
    const Ids& end;
    Rows<float>& out;
    int64_t group;  // query heads of one KV head
    int64_t first, last;
    int64_t chunks;  // most chunks of any row
    float* parts;    // [last - first][chunks][query heads][head_len + 2]

    int64_t first_chunk(int64_t row) const { return begin.data[row] / kChunkLen; }
    int64_t num_chunks(int64_t row) const {
        return end.data[row] <= begin.data[row] ? 0 : (end.data[row] - 1) / kChunkLen - first_chunk(row) + 1;
    }
    int64_t part_len() const { return view.cache.head_len + 2; }
};

// Neighbouring rows that take a chunk together: all see pages of the same table.
struct Party {
    int64_t first, last;
    int64_t first_chunk, last_chunk;  // that any of them sees, one past the last
};

// Most rows of a party: so many that each thread has two units or more, one where a party would be too small or where
// each row widens what it reads beside its multiply-adds.
int64_t party_len(const Slice& s, int64_t threads) {
    if (!widens_at_a_cost()) return 1;
    const int64_t units = (s.last - s.first) * s.view.cache.kv_heads * s.chunks;
    const int64_t most = std::min<int64_t>(kernels().attention_rows, kAttentionQueries / s.group);
    const int64_t len = std::min(units / (2 * threads), most);
    return len * s.group > kFewQueries ? len : 1;
}

Party party_of(const Slice& s, int64_t first, int64_t last) {
    Party party{first, last, INT64_MAX, 0};
    for (int64_t row = first; row < last; ++row) {
        if (s.num_chunks(row) == 0) continue;
        party.first_chunk = std::min(party.first_chunk, s.first_chunk(row));
        party.last_chunk = std::max(party.last_chunk, s.first_chunk(row) + s.num_chunks(row));
    }
    if (party.last_chunk == 0) party.first_chunk = 0;
    return party;
}

// The slice's rows in parties of at most `len`, equal to within one for each segment; returns how many there are.
int64_t cut_parties(const Slice& s, int64_t len, Party* parties) {
    const int32_t* segment = s.view.cache.row_segment.data;
    int64_t count = 0;
    for (int64_t from = s.first, to = from; from < s.last; from = to) {
        while (to < s.last && segment[to] == segment[from]) ++to;
        const int64_t rows = to - from, cuts = ceil_div(rows, len);
        for (int64_t i = 0; i < cuts; ++i) {
            parties[count++] = party_of(s, from + rows * i / cuts, from + rows * (i + 1) / cuts);
        }
    }
    return count;
}

// Parties whose units follow each other: all, or, where there are enough for every thread, those of one. Within them
// parties are innermost, so that they share a chunk; and a row's chunks are merged, and its result is read, mostly by
// the thread that wrote them.
struct Neighbours {
    int64_t first, count;
};

// The neighbours of party `party` out of `parties`, which are cut into so many groups.
Neighbours neighbours_of(int64_t party, int64_t parties, int64_t groups) {
    const int64_t group = ((party + 1) * groups - 1) / parties, first = parties * group / groups;
    return {first, parties * (group + 1) / groups - first};
}

// Into how many the query heads of a KV head are cut: where there are few units, so that each thread has as much to do
// as the others. Fewer heads that share what they widen is the price.
int64_t head_cuts(const Slice& s, int64_t parties, int64_t threads) {
    const int64_t outer = parties * s.view.cache.kv_heads;
    if (parties < s.last - s.first || outer * s.chunks >= kFewUnits * threads) return 1;
    return std::min(threads / std::gcd(outer, threads), std::max<int64_t>(s.group / 2, 1));
}

// What the rows of a party see of one chunk, for one part of the query heads of one KV head.
void run_unit(const Slice& s, const Party& party, int64_t chunk, int64_t head, int64_t part, int64_t cuts) {
    if (chunk >= party.last_chunk) return;
    const int64_t start = chunk * kChunkLen, heads = s.view.cache.kv_heads;
    const int64_t first = s.group * part / cuts;  // query head
    AttentionArgs args{};
    args.heads = static_cast<int>(s.group * (part + 1) / cuts - first);
    args.head_len = static_cast<int>(s.view.cache.head_len);
    const int32_t* table = s.view.table(party.first) + start / kPageLen;
    for (int64_t row = party.first; row < party.last; ++row) {
        const int64_t begin = std::max<int64_t>(s.begin.data[row] - start, 0);
        const int64_t end = std::min<int64_t>(s.end.data[row] - start, kChunkLen);
        if (begin >= end) continue;
        const int64_t slot = ((row - s.first) * s.chunks + chunk - s.first_chunk(row)) * heads + head;
        args.row[args.rows++] = {s.q.row(row) + (head * s.group + first) * args.head_len,
                                 s.parts + (slot * s.group + first) * s.part_len(), static_cast<int>(begin),
                                 static_cast<int>(end)};
        for (int64_t i = begin / kPageLen; i * kPageLen < end; ++i) {
            args.keys[i] = s.view.keys(table[i], head);
            args.values[i] = s.view.values(table[i], head);
        }
    }
    if (args.rows) kernels().attention_chunk(args);
}

// One unit is (row, query head).
void merge_unit(const Slice& s, int64_t unit) {
    const int64_t heads = s.view.cache.kv_heads * s.group, row = s.first + unit / heads, head = unit % heads;
    const int head_len = static_cast<int>(s.view.cache.head_len);
    float* out = s.out.row(row) + head * head_len;
    if (s.num_chunks(row) == 0) {
        std::memset(out, 0, static_cast<size_t>(head_len) * sizeof(float));
        return;
    }
    const float* parts = s.parts + ((row - s.first) * s.chunks * heads + head) * s.part_len();
    kernels().attention_merge(parts, heads * s.part_len(), static_cast<int>(s.num_chunks(row)), head_len, out);
}

template <class Body>
void each_unit(Session& session, int64_t units, bool is_small, const Body& body) {
    const int64_t grain = is_small ? units : ceil_div(units, kMostRuns * static_cast<int64_t>(session.threads()));
    session.each(units, grain, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) body(i);
    });
}

}  // namespace

void append_kv(FloatRows k, FloatRows v, const Cache& cache, Ids positions) {
    require_shape("k", k, positions.len, cache.kv_heads * cache.head_len);
    require_shape("v", v, positions.len, cache.kv_heads * cache.head_len);
    require_segments(cache, positions.len);
    for (int64_t t = 0; t < positions.len; ++t) {
        const int64_t position = positions.data[t];
        require_pages(cache, t, position, position + 1);
    }
    const FloatEnvironment environment;
    const View view{cache};
    for (int64_t t = 0; t < positions.len; ++t) {
        const int64_t page = view.table(t)[positions.data[t] / kPageLen];
        for (int64_t h = 0; h < cache.kv_heads; ++h) {
            kernels().append_row(k.row(t) + h * cache.head_len, v.row(t) + h * cache.head_len,
                                 static_cast<int>(cache.head_len), positions.data[t] % kPageLen, view.keys(page, h),
                                 view.values(page, h));
        }
    }
}

void attention(FloatRows q, const Cache& cache, Ids begin, Ids end, Rows<float> out) {
    const int64_t kv_len = cache.kv_heads * cache.head_len;
    require(q.cols > 0 && q.cols % kv_len == 0,
            [&] { return "q: width " + number(q.cols) + ", expected a multiple of the cache's " + number(kv_len); });
    require_shape("out", out, q.rows, q.cols);
    require_segments(cache, q.rows);
    require_len("begin", begin, q.rows);
    require_len("end", end, q.rows);
    for (int64_t t = 0; t < q.rows; ++t) {
        if (begin.data[t] < end.data[t]) require_pages(cache, t, begin.data[t], end.data[t]);
    }
    Session session;
    const int64_t group = q.cols / kv_len, heads = cache.kv_heads * group;
    for (int64_t first = 0; first < q.rows;) {
        Slice s{q, {cache}, begin, end, out, group, first, first, 0, nullptr};
        // As many rows as fit the scratch.
        int64_t keys = 0;
        while (s.last < q.rows) {
            const int64_t chunks = s.num_chunks(s.last) > s.chunks ? s.num_chunks(s.last) : s.chunks;
            const int64_t needed = (s.last + 1 - first) * heads * chunks * s.part_len();
            if (s.last >= first + kLeastRows && needed > kScratchFloats) break;
            keys += s.num_chunks(s.last) ? end.data[s.last] - begin.data[s.last] : 0;
            s.chunks = chunks;
            ++s.last;
        }
        const int64_t rows = s.last - first;
        const int64_t floats = rows * heads * s.chunks * s.part_len();
        const size_t party_bytes = static_cast<size_t>(rows) * sizeof(Party);
        unsigned char* memory = session.scratch(party_bytes + static_cast<size_t>(floats) * sizeof(float));
        Party* parties = reinterpret_cast<Party*>(memory);
        s.parts = reinterpret_cast<float*>(memory + party_bytes);
        const int64_t count = cut_parties(s, party_len(s, session.threads()), parties);
        int64_t chunks = 0;
        for (int64_t i = 0; i < count; ++i) {
            chunks = std::max(chunks, parties[i].last_chunk - parties[i].first_chunk);
        }
        const bool is_small = keys * q.cols < kSmallKeys;
        const int64_t cuts = is_small ? 1 : head_cuts(s, count, session.threads());
        const int64_t units = chunks * cache.kv_heads * cuts;  // of a party
        const int64_t groups = count < 2 * session.threads() ? 1 : session.threads();
        each_unit(session, count * units, is_small, [&](int64_t i) {
            const Neighbours own = neighbours_of(i / units, count, groups);
            i -= own.first * units;
            const Party& party = parties[own.first + i % own.count];
            const int64_t part = i / own.count / chunks;
            run_unit(s, party, party.first_chunk + i / own.count % chunks, part / cuts, part % cuts, cuts);
        });
        each_unit(session, rows * heads, floats < kSmallParts, [&](int64_t i) { merge_unit(s, i); });
        first = s.last;
    }
}

}  // namespace foretoken
