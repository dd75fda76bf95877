#include "kernels/dot_avx512vnni.h"
#include "kernels/make_table.h"

namespace foretoken {
extern constexpr Kernels kernels_avx512vnni = make_table<VecAvx512>("avx512vnni");
}
