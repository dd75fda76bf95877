// Only what differs from AVX2. Everything else would be code for the same class, compiled with other instructions, and
// the linker could hand it to the table of processors without them.
#ifdef FORETOKEN_SIMDE
#include "base/simde_gaps.h"
#endif
#include "kernels/dot_avxvnni.h"

namespace foretoken {
extern constexpr BlockKernels blocks_avxvnni = block_kernels<VecAvx2, DotQ8AvxVnni, DotQ4AvxVnni>();
}
