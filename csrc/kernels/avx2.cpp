#include "kernels/dot_avx2.h"
#include "kernels/make_table.h"

namespace foretoken {
extern constexpr Kernels kernels_avx2 = make_table<VecAvx2>("avx2");
}
