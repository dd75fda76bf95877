// What ops take: views on the caller's memory. Strides count elements; the last axis is contiguous.
#pragma once

#include <cstdint>
#include <string>

#include "base/errors.h"
#include "formats/bf16.h"
#include "formats/q4.h"
#include "formats/q8.h"

namespace foretoken {

template <class T>
struct Vector {
    T* data;
    int64_t len;
};

template <class T>
struct Rows {
    T* data;
    int64_t rows, cols, stride;

    T* row(int64_t i) const { return data + i * stride; }
};

enum class Format { f32, bf16, q8, q4 };
enum class Layout { panels, rows };

// One packed matrix of n outputs and k inputs, in the bytes that packed_bytes() counts.
struct Weight {
    Format format;
    Layout layout;
    int64_t n, k;
    const uint8_t* data;
};

// Products of these take quantised activations.
inline bool has_blocks(Format format) { return format == Format::q8 || format == Format::q4; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of one output (rows) or of 16 outputs (panels).
inline int64_t unit_bytes(Format format, Layout layout, int64_t k) {
    const bool is_panels = layout == Layout::panels;
    const int64_t blocks = ceil_div(k, kBlock);
    switch (format) {
        case Format::f32:
            return k * (is_panels ? 4 * kPanel : 4);
        case Format::bf16:
            return k * (is_panels ? 2 * kPanel : 2);
        case Format::q8:
            return blocks * static_cast<int64_t>(is_panels ? sizeof(BlockQ8Panel) : sizeof(BlockQ8Row));
        case Format::q4:
            return blocks * static_cast<int64_t>(is_panels ? sizeof(BlockQ4Panel) : sizeof(BlockQ4Row));
    }
    return 0;
}

inline int64_t packed_bytes(Format format, Layout layout, int64_t n, int64_t k) {
    require(0 < n && n <= INT32_MAX && 0 < k && k <= (1 << 24), [&] {
        return "a packed matrix needs 1 to 2^31 - 1 outputs and 1 to 2^24 inputs, got " + number(n) + " and " +
               number(k);
    });
    return unit_bytes(format, layout, k) * (layout == Layout::panels ? ceil_div(n, kPanel) : n);
}

template <class T>
void require_shape(const char* name, const Rows<T>& a, int64_t rows, int64_t cols) {
    require(a.rows == rows && a.cols == cols, [&] {
        return std::string(name) + ": shape (" + number(a.rows) + ", " + number(a.cols) + "), expected (" +
               number(rows) + ", " + number(cols) + ")";
    });
}

template <class T>
void require_len(const char* name, const Vector<T>& a, int64_t len) {
    require(a.len == len,
            [&] { return std::string(name) + ": length " + number(a.len) + ", expected " + number(len); });
}

}  // namespace foretoken
