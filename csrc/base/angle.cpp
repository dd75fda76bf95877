#include "base/angle.h"

#include <cmath>
#include <cstdint>

namespace foretoken {

// source: quadrants by Cody and Waite's reduction with pi/2 in two parts (107 bits); polynomials of FreeBSD's k_sin.c
// and k_cos.c.
void sin_cos(float angle, float* sin, float* cos) {
    const double magic = 0x1.8p52;
    const double shifted = std::fma(static_cast<double>(angle), 0x1.45f306dc9c883p-1, magic);
    const double n = shifted - magic;
    double r = std::fma(n, -0x1.921fb54442d18p+0, static_cast<double>(angle));
    r = std::fma(n, -0x1.1a62633145c07p-54, r);
    const double z = r * r;
    double s = 1.58969099521155010221e-10;
    s = std::fma(s, z, -2.50507602534068634195e-08);
    s = std::fma(s, z, 2.75573137070700676789e-06);
    s = std::fma(s, z, -1.98412698298579493134e-04);
    s = std::fma(s, z, 8.33333333332248946124e-03);
    s = std::fma(s, z, -1.66666666666666324348e-01);
    s = std::fma(s * z, r, r);
    double c = -1.13596475577881948265e-11;
    c = std::fma(c, z, 2.08757232129817482790e-09);
    c = std::fma(c, z, -2.75573143513906633035e-07);
    c = std::fma(c, z, 2.48015872894767294178e-05);
    c = std::fma(c, z, -1.38888888888741095749e-03);
    c = std::fma(c, z, 4.16666666666666019037e-02);
    c = std::fma(c * z, z, std::fma(z, -0.5, 1.0));
    const int64_t quadrant = static_cast<int64_t>(n) & 3;
    const double sine = quadrant & 1 ? c : s, cosine = quadrant & 1 ? s : c;
    *sin = static_cast<float>(quadrant & 2 ? -sine : sine);
    *cos = static_cast<float>(quadrant == 1 || quadrant == 2 ? -cosine : cosine);
}

}  // namespace foretoken
