// Vectors of 4 floats in the compiler's own vector type: any processor that GCC or Clang knows.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct Simd {
    typedef float Vec __attribute__((vector_size(16)));
    typedef int32_t Ints __attribute__((vector_size(16)));
    static constexpr const char * name = "portable";
    static constexpr int lanes = 4;
    static constexpr int max_heads = 3;  // heads whose scores of four cells fit into the registers
    static constexpr int tile_rows = 4, tile_vecs = 3;  // register block of the tile products
    static constexpr int min_tile_queries = 8;

    static Vec zero() { return Vec{}; }
    static Vec set(float x) { return Vec{x, x, x, x}; }
    static Vec load(const float * p) {
        Vec v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static void store(float * p, Vec v) { std::memcpy(p, &v, sizeof v); }
    static Vec load_f16(const uint16_t * p) { return Vec{half(p[0]), half(p[1]), half(p[2]), half(p[3])}; }
    static Vec load_i8(const int8_t * p) { return Vec{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
    // The exponent's bias is corrected by a multiplication, which is exact and covers subnormals.
    static float half(uint16_t h) {
        const uint32_t magnitude = uint32_t(h & 0x7FFF) << 13;
        float x = from_bits(magnitude) * 0x1p112f;
        if ((h & 0x7C00) == 0x7C00) x = from_bits(magnitude | 0x7F800000u);
        return h & 0x8000 ? -x : x;
    }

    static Vec add(Vec a, Vec b) { return a + b; }
    static Vec sub(Vec a, Vec b) { return a - b; }
    static Vec mul(Vec a, Vec b) { return a * b; }
    static Vec div(Vec a, Vec b) { return a / b; }
    static Vec max(Vec a, Vec b) { return select(a > b, a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
    // Adding 1.5 x 2^23 leaves no bits for a fraction; |a| < 2^22 here.
    static Vec round(Vec a) {
        const Vec shift = set(12582912.0f);
        return (a + shift) - shift;
    }
    // a * 2^n for whole n of -126 to 127
    static Vec scale2(Vec a, Vec n) {
        const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
        return a * (Vec) exponent;  // the bits, as vector casts are
    }
    // a where x >= limit, else 0
    static Vec keep_if_at_least(Vec x, float limit, Vec a) { return select(x >= set(limit), a, zero()); }

    static float sum(Vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
    static float max_of(Vec a) {
        const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
        return x > y ? x : y;
    }
    // out[i] = the sum of the lanes of the i-th vector
    static void store_sums(float * out, Vec a, Vec b, Vec c, Vec d) {
        out[0] = sum(a);
        out[1] = sum(b);
        out[2] = sum(c);
        out[3] = sum(d);
    }

  private:
    static float from_bits(uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    static Vec select(Ints where, Vec a, Vec b) {
        return (Vec) ((where & (Ints) a) | (~where & (Ints) b));
    }
};

}  // namespace
