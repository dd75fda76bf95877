// Which rows of the dispatch table this processor and operating system can run, and what suits it.
#pragma once

namespace foretoken {

bool has_avx2();        // with FMA and F16C
bool has_avxvnni();     // VNNI on 256 bits without AVX-512, and AVX2
bool has_avx512vnni();  // with F, BW, VL, DQ

// What is known of Intel's, and is the other way round elsewhere as far as that was measured.
bool reads_two_streams();  // whether a core reads two streams of memory faster than one
bool widens_at_a_cost();   // whether halves become floats where floats are multiplied, on AVX-512

bool is_intel();
void take_for_intel(bool is_one);  // for tests of both ways on one machine

}  // namespace foretoken
