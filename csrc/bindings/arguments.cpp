#include "bindings/arguments.h"

#include <nanobind/stl/string.h>

namespace foretoken {

Format format_named(const std::string& name) {
    if (name == "f32") return Format::f32;
    if (name == "bf16") return Format::bf16;
    if (name == "q8") return Format::q8;
    if (name == "q4") return Format::q4;
    throw ShapeError("format: got \"" + name + "\", expected \"f32\", \"bf16\", \"q8\" or \"q4\"");
}

Layout layout_named(const std::string& name) {
    if (name == "panels") return Layout::panels;
    if (name == "rows") return Layout::rows;
    throw ShapeError("layout: got \"" + name + "\", expected \"panels\" or \"rows\"");
}

static nb::object field(nb::handle packed, const char* name) {
    PyObject* value = PyObject_GetAttrString(packed.ptr(), name);
    if (!value) {
        PyErr_Clear();
        throw ShapeError("weight: expected a Packed, as pack() returns");
    }
    return nb::steal(value);
}

template <class T>
static T field_as(nb::handle packed, const char* name) {
    T value;
    if (!nb::try_cast<T>(field(packed, name), value, false)) {
        throw ShapeError(std::string("weight.") + name + ": a value of the wrong type");
    }
    return value;
}

WeightArgument::WeightArgument(nb::handle packed) : data_("weight.data", field(packed, "data")) {
    weight_.format = format_named(field_as<std::string>(packed, "format"));
    weight_.layout = layout_named(field_as<std::string>(packed, "layout"));
    weight_.n = field_as<int64_t>(packed, "n");
    weight_.k = field_as<int64_t>(packed, "k");
    const int64_t bytes = packed_bytes(weight_.format, weight_.layout, weight_.n, weight_.k);
    weight_.data = data_.dims(1);
    require(data_.dim(0) == bytes, [&] {
        return "weight.data: " + number(data_.dim(0)) + " bytes, expected " + number(bytes) + " for " +
               number(weight_.n) + " x " + number(weight_.k);
    });
    require(reinterpret_cast<uintptr_t>(weight_.data) % 4 == 0,
            [] { return std::string("weight.data: memory that is not aligned"); });
}

}  // namespace foretoken
