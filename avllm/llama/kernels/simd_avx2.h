// AVX2 with FMA and F16C: vectors of 8 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Simd {
    using Vec = __m256;
    static constexpr const char * name = "avx2";
    static constexpr int lanes = 8;
    static constexpr int max_heads = 3;  // heads whose scores of four cells fit into the registers
    static constexpr int tile_rows = 6, tile_vecs = 2;  // register block of the tile products
    static constexpr int min_tile_queries = 8;

    static Vec zero() { return _mm256_setzero_ps(); }
    static Vec set(float x) { return _mm256_set1_ps(x); }
    static Vec load(const float * p) { return _mm256_loadu_ps(p); }
    static void store(float * p, Vec v) { _mm256_storeu_ps(p, v); }
    static Vec load_f16(const uint16_t * p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
    static Vec load_i8(const int8_t * p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
    }
    static float half(uint16_t h) { return _cvtsh_ss(h); }

    static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
    static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
    static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
    static Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
    static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
    static Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // a * 2^n for whole n of -126 to 127
    static Vec scale2(Vec a, Vec n) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    }
    // a where x >= limit, else 0
    static Vec keep_if_at_least(Vec x, float limit, Vec a) {
        return _mm256_and_ps(_mm256_cmp_ps(x, set(limit), _CMP_GE_OQ), a);
    }

    static float sum(Vec a) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
    }
    static float max_of(Vec a) {
        __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        m = _mm_max_ps(m, _mm_movehl_ps(m, m));
        return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    }
    // out[i] = the sum of the lanes of the i-th vector
    static void store_sums(float * out, Vec a, Vec b, Vec c, Vec d) {
        const Vec ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        const Vec cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        const Vec all = add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
    }
};

}  // namespace
