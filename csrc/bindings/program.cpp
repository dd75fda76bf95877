// foretoken._core.Program, used by foretoken.ops.native alone: it keeps the memory alive whose addresses are held here.
#include "bindings/program.h"

#include <string>

namespace foretoken {
namespace {

namespace nb = nanobind;

// Any C-contiguous array, held for the length of the call.
class Bytes {
  public:
    explicit Bytes(nb::handle array, bool is_written = false) {
        const int flags = PyBUF_ND | (is_written ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(array.ptr(), &buffer, flags)) {
            PyErr_Clear();
            throw ShapeError("a program's array: not an array, or not contiguous");
        }
    }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    ~Bytes() { PyBuffer_Release(&buffer); }

    size_t len() const { return static_cast<size_t>(buffer.len); }

    Py_buffer buffer{};
};

void bind_slots(Program& program, size_t first, nb::list arrays) {
    for (nb::handle array : arrays) {
        const Bytes bytes(array, false);
        const Py_buffer& b = bytes.buffer;
        program.bind(first++, {b.buf, b.itemsize, std::vector<int64_t>(b.shape, b.shape + b.ndim)});
    }
}

void load(Program& program, nb::list inputs, nb::list tables) {
    require(nb::len(inputs) == program.num_inputs(), [] { return std::string("inputs: not as many as recorded"); });
    size_t index = 0;
    for (nb::handle input : inputs) {
        const Bytes bytes(input);
        program.set_input(index++, bytes.buffer.buf, bytes.len());
    }
    bind_slots(program, 0, tables);
}

}  // namespace

void bind_program(nb::module_& m) {
    nb::class_<Program>(m, "Program")
        .def(nb::init<>())
        .def("begin", &Program::begin)
        .def("end", &Program::end)
        .def("allow",
             [](Program& p, nb::handle array) {
                 const Bytes bytes(array, true);
                 p.allow(bytes.buffer.buf, bytes.len());
             })
        .def("add_input",
             [](Program& p, nb::handle array) {
                 const Bytes bytes(array, true);
                 p.allow(bytes.buffer.buf, bytes.len());
                 p.add_input(bytes.buffer.buf, bytes.len());
             })
        .def("set_slots", &Program::set_slots)
        .def("bind", &bind_slots)
        .def("load", &load)
        .def("run", &Program::run, nb::call_guard<nb::gil_scoped_release>())
        .def("__len__", &Program::len);
}

}  // namespace foretoken
