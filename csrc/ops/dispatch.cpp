#include "ops/dispatch.h"

#include <atomic>

#include "base/cpu.h"

namespace foretoken {

#ifdef FORETOKEN_AVXVNNI
static Kernels with_blocks(Kernels table, const char* isa, const BlockKernels& blocks) {
    table.isa = isa;
    table.blocks = blocks;
    return table;
}
#endif

const std::vector<const Kernels*>& available_kernels() {
    static const std::vector<const Kernels*> rows = [] {
        std::vector<const Kernels*> found{&kernels_scalar};
#ifdef FORETOKEN_AVX2
        if (has_avx2()) found.push_back(&kernels_avx2);
#endif
#ifdef FORETOKEN_AVXVNNI
        static const Kernels kernels_avxvnni = with_blocks(kernels_avx2, "avxvnni", blocks_avxvnni);
        if (has_avxvnni()) found.push_back(&kernels_avxvnni);
#endif
#ifdef FORETOKEN_AVX512VNNI
        if (has_avx512vnni()) found.push_back(&kernels_avx512vnni);
#endif
        return found;
    }();
    return rows;
}

static std::atomic<const Kernels*>& choice() {
    static std::atomic<const Kernels*> row{available_kernels().back()};
    return row;
}

const Kernels& kernels() { return *choice().load(std::memory_order_relaxed); }

bool use_kernels(const std::string& isa) {
    for (const Kernels* row : available_kernels()) {
        if (isa == row->isa) {
            choice() = row;
            return true;
        }
    }
    return false;
}

}  // namespace foretoken
