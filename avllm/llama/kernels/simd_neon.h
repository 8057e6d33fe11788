// NEON of AArch64: vectors of 4 floats.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace {

struct Simd {
    using Vec = float32x4_t;
    static constexpr const char * name = "neon";
    static constexpr int lanes = 4;
    static constexpr int max_heads = 4;  // heads whose scores of four cells fit into the registers
    static constexpr int tile_rows = 6, tile_vecs = 4;  // register block of the tile products
    static constexpr int min_tile_queries = 8;

    static Vec zero() { return vdupq_n_f32(0); }
    static Vec set(float x) { return vdupq_n_f32(x); }
    static Vec load(const float * p) { return vld1q_f32(p); }
    static void store(float * p, Vec v) { vst1q_f32(p, v); }
    static Vec load_f16(const uint16_t * p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
    static Vec load_i8(const int8_t * p) {
        int32_t four;
        std::memcpy(&four, p, sizeof four);
        const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
    }
    static float half(uint16_t h) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0); }

    static Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
    static Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
    static Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
    static Vec div(Vec a, Vec b) { return vdivq_f32(a, b); }
    static Vec max(Vec a, Vec b) { return vmaxq_f32(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
    static Vec round(Vec a) { return vrndnq_f32(a); }
    // a * 2^n for whole n of -126 to 127
    static Vec scale2(Vec a, Vec n) {
        const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
        return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
    }
    // a where x >= limit, else 0
    static Vec keep_if_at_least(Vec x, float limit, Vec a) {
        return vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x, set(limit)), vreinterpretq_u32_f32(a)));
    }

    static float sum(Vec a) { return vaddvq_f32(a); }
    static float max_of(Vec a) { return vmaxvq_f32(a); }
    // out[i] = the sum of the lanes of the i-th vector
    static void store_sums(float * out, Vec a, Vec b, Vec c, Vec d) {
        vst1q_f32(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
    }
};

}  // namespace
