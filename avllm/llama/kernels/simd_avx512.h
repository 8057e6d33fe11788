// AVX-512 (F, BW, DQ, VL) vectors of 16 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Simd {
    using Vec = __m512;
    static constexpr const char * name = "avx512";
    static constexpr int lanes = 16;
    static constexpr int max_heads = 6;  // heads whose scores of four cells fit into the registers
    static constexpr int tile_rows = 6, tile_vecs = 4;  // register block of the tile products
    static constexpr int min_tile_queries = 12;

    static Vec zero() { return _mm512_setzero_ps(); }
    static Vec set(float x) { return _mm512_set1_ps(x); }
    static Vec load(const float * p) { return _mm512_loadu_ps(p); }
    static void store(float * p, Vec v) { _mm512_storeu_ps(p, v); }
    static Vec load_f16(const uint16_t * p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }
    static Vec load_i8(const int8_t * p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
    }
    static float half(uint16_t h) { return _cvtsh_ss(h); }

    static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
    static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
    static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
    static Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
    static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
    static Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // a * 2^n for whole n
    static Vec scale2(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
    // a where x >= limit, else 0
    static Vec keep_if_at_least(Vec x, float limit, Vec a) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set(limit), _CMP_GE_OQ), a);
    }

    static float sum(Vec a) { return _mm512_reduce_add_ps(a); }
    static float max_of(Vec a) { return _mm512_reduce_max_ps(a); }
    // out[i] = the sum of the lanes of the i-th vector
    static void store_sums(float * out, Vec a, Vec b, Vec c, Vec d) {
        const Vec ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        const Vec cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        const Vec all = add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
        const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
    }
};

}  // namespace
