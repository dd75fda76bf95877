// Which rows of the dispatch table this processor and operating system can run.
#pragma once

namespace foretoken {

bool has_avx2();        // with FMA and F16C
bool has_avx512vnni();  // with F, BW, VL, DQ

}  // namespace foretoken
