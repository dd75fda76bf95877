// Python arrays to views: the buffer protocol, with every surprise turned into ShapeError.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <string>

#include "ops/ops.h"

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

}  // namespace foretoken
