// Running an op from Python: the lock released, and a record kept while a program is being recorded.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "ops/program.h"

namespace foretoken {

// `op` holds views of raw memory, by value: it outlives the Python objects behind them.
template <class Op>
void issue(Op op) {
    {
        const nanobind::gil_scoped_release unlocked;
        op();
    }
    if (Program* program = Program::recording()) program->add(std::move(op));
}

// For ops whose result goes to Python, where a run could not see it.
inline void refuse_recording(const char* name) {
    require(!Program::recording(), [&] { return std::string(name) + ": a program cannot record it"; });
}

void bind_program(nanobind::module_& m);

}  // namespace foretoken
