#pragma once

#include <nanobind/nanobind.h>

namespace foretoken {

void bind_text(nanobind::module_& m);

}  // namespace foretoken
