// Which rows of the dispatch table this processor and operating system can run, and what suits it.
#pragma once

namespace foretoken {

bool has_avx2();        // with FMA and F16C
bool has_avxvnni();     // VNNI on 256 bits without AVX-512, and AVX2
bool has_avx512vnni();  // with F, BW, VL, DQ

bool reads_two_streams();  // whether a core reads two streams of memory faster than one: known of Intel's

}  // namespace foretoken
