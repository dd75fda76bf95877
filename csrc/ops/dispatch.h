// Which row of the dispatch table is in use. Filled once from the processor's features.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace foretoken {

const std::vector<const Kernels*>& available_kernels();  // best last; never empty
const Kernels& kernels();                                // the row in use; at first the best
bool use_kernels(const std::string& isa);                // false if not available

}  // namespace foretoken
