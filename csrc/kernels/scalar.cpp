// The row of the dispatch table that defines the bits; runs on any processor.
#include "kernels/dot_scalar.h"
#include "kernels/make_table.h"

namespace foretoken {
extern constexpr Kernels kernels_scalar = make_table<VecScalar>("scalar");
}
