// Python arrays to views: the buffer protocol, with every surprise turned into ShapeError.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <string>

#include "ops/program.h"

namespace foretoken {

namespace nb = nanobind;

template <class T>
struct TypeName;
template <>
struct TypeName<float> {
    static constexpr const char *name = "float32", *codes = "f";
};
template <>
struct TypeName<uint16_t> {  // the bits of a float16
    static constexpr const char *name = "float16", *codes = "e";
};
template <>
struct TypeName<int32_t> {
    static constexpr const char *name = "int32", *codes = "il";
};
template <>
struct TypeName<uint32_t> {
    static constexpr const char *name = "uint32", *codes = "IL";
};
template <>
struct TypeName<uint8_t> {
    static constexpr const char *name = "uint8", *codes = "B";
};

// Holds the buffer for the length of the call. T is const for arrays that are only read; None gives a null view where
// the binding allows it.
template <class T>
class Array {
    using Value = std::remove_const_t<T>;

  public:
    Array(const char* name, nb::handle object, bool is_optional = false) : name_(name) {
        if (is_optional && object.is_none()) return;
        const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (std::is_const_v<T> ? 0 : PyBUF_WRITABLE);
        if (PyObject_GetBuffer(object.ptr(), &buffer_, flags)) {
            PyErr_Clear();
            fail(std::is_const_v<T> ? "not an array" : "not a writable array");
        }
        is_held_ = true;
        const char* format = buffer_.format ? buffer_.format : "B";
        if (*format == '@' || *format == '=' || *format == '<') ++format;
        const bool is_type = std::strchr(TypeName<Value>::codes, *format) && *format && !format[1] &&
                             buffer_.itemsize == static_cast<Py_ssize_t>(sizeof(T));
        if (!is_type) fail(std::string("element type '") + format + "'");
        if (reinterpret_cast<uintptr_t>(buffer_.buf) % sizeof(T)) fail("memory that is not aligned");
        require_recordable();
    }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() {
        if (is_held_) PyBuffer_Release(&buffer_);
    }

    Vector<T> vector() const {
        if (!is_held_) return {nullptr, 0};
        dims(1);
        return {data(), buffer_.shape[0]};
    }
    Rows<T> rows() const {
        if (!is_held_) return {nullptr, 0, 0, 0};
        check_rank(2);
        const int64_t rows = buffer_.shape[0], cols = buffer_.shape[1], item = sizeof(T);
        const int64_t step = buffer_.strides[0];
        if (cols > 1 && buffer_.strides[1] != item) fail("columns that are not contiguous");
        if (rows > 1 && (step % item || step / item < cols)) fail("rows that overlap or run backwards");
        return {data(), rows, cols, rows > 1 ? step / item : cols};
    }
    T* dims(int rank) const {  // C-contiguous with this many axes
        check_rank(rank);
        if (!PyBuffer_IsContiguous(&buffer_, 'C')) fail("memory that is not contiguous");
        return data();
    }
    int64_t dim(int axis) const { return buffer_.shape[axis]; }

    [[noreturn]] void fail(const std::string& got) const {
        throw ShapeError(std::string(name_) + ": got " + got + ", expected a " + TypeName<Value>::name +
                         " array as the op's contract says (foretoken/ops/__init__.py)");
    }

  private:
    void require_recordable() const {
        const Program* program = Program::recording();
        require(!program || buffer_.readonly || buffer_.len == 0 || program->knows(buffer_.buf), [&] {
            return std::string(name_) +
                   ": an array that a program cannot record: not made by ops.empty or an op, no input of the "
                   "program, " +
                   "and not read-only";
        });
    }
    T* data() const { return static_cast<T*>(buffer_.buf); }
    void check_rank(int rank) const {
        if (buffer_.ndim != rank) fail(number(buffer_.ndim) + " axes instead of " + number(rank));
    }

    const char* name_;
    Py_buffer buffer_{};
    bool is_held_ = false;
};

using In = Array<const float>;
using Out = Array<float>;
using InIds = Array<const int32_t>;

Format format_named(const std::string& name);
Layout layout_named(const std::string& name);

// A Packed of Python, checked: format, layout, n, k and its bytes.
class WeightArgument {
  public:
    explicit WeightArgument(nb::handle packed);
    const Weight& view() const { return weight_; }

  private:
    Array<const uint8_t> data_;
    Weight weight_;
};

// One layer's cache arguments; keys and values are written only by append_kv.
class CacheArgument {
  public:
    CacheArgument(nb::handle keys, nb::handle values, nb::handle tables, nb::handle row_segment)
        : keys_("keys", keys),
          values_("values", values),
          tables_("tables", tables),
          segment_("row_segment", row_segment) {
        cache_.keys = keys_.dims(5);
        cache_.values = values_.dims(4);
        cache_.pages = keys_.dim(0);
        cache_.kv_heads = keys_.dim(1);
        cache_.head_len = keys_.dim(3);
        require(keys_.dim(2) == 4 && keys_.dim(4) == 16 && cache_.kv_heads > 0 && cache_.head_len > 0 &&
                    cache_.head_len <= 65536,
                [] { return std::string("keys: expected shape (pages, Hkv, 4, Dh, 16)"); });
        require(values_.dim(0) == cache_.pages && values_.dim(1) == cache_.kv_heads && values_.dim(2) == 64 &&
                    values_.dim(3) == cache_.head_len,
                [] { return std::string("values: expected shape (pages, Hkv, 64, Dh) that fits keys"); });
        cache_.tables = tables_.rows();
        cache_.row_segment = segment_.vector();
    }
    const Cache& view() const { return cache_; }

  private:
    Array<uint16_t> keys_, values_;
    InIds tables_, segment_;
    Cache cache_{};
};

}  // namespace foretoken
