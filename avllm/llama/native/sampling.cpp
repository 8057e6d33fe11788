#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "thread_pool.h"

namespace {

constexpr float NEG_INF = -std::numeric_limits<float>::infinity();
constexpr int   BLOCK   = 256;  // logits per block of the blockwise scans

// exp for x <= 0, relative error below 2e-7, flushed to 0 under -87; branch-free, so the compiler
// vectorises loops over it (libm's expf it does not).
inline float exp_neg(float x) {
    x               = std::max(x, -87.0f);
    const float t   = x * 1.44269504088896341f;
    const float n   = std::floor(t + 0.5f);
    const float r   = (x - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
    float       p   = 1.9875691500e-4f;
    p               = p * r + 1.3981999507e-3f;
    p               = p * r + 8.3334519073e-3f;
    p               = p * r + 4.1665795894e-2f;
    p               = p * r + 1.6666665459e-1f;
    p               = p * r + 5.0000001201e-1f;
    p               = p * r * r + r + 1.0f;
    union { uint32_t i; float f; } scale;
    scale.i = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
    return p * scale.f;
}

float block_max(const float * x, int n) {
    float lanes[16];
    std::fill(lanes, lanes + 16, NEG_INF);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 16; j++) {
            lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
        }
    }
    for (; i < n; i++) {
        lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
    }
    return *std::max_element(lanes, lanes + 16);
}

float block_sum_exp(const float * x, int n, float max, float scale) {
    float lanes[16] = {};
    int   i         = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 16; j++) {
            lanes[j] += exp_neg((x[i + j] - max) * scale);
        }
    }
    for (; i < n; i++) {
        lanes[0] += exp_neg((x[i] - max) * scale);
    }
    float sum = 0;
    for (float lane : lanes) {
        sum += lane;
    }
    return sum;
}

struct Candidate {
    float   logit;
    int32_t id;

    // Sort order: likelier first, equal logits by id, so that greedy and sorted lists agree.
    bool operator<(const Candidate & other) const {
        return logit != other.logit ? logit > other.logit : id < other.id;
    }
};

double sum_exp(const float * row, int n, float max, float scale) {
    double sum = 0;
    for (int i = 0; i < n; i += BLOCK) {
        sum += block_sum_exp(row + i, std::min(BLOCK, n - i), max, scale);
    }
    return sum;
}

// Candidates above `threshold`, unsorted.
void collect_above(const float * row, int n, float threshold, std::vector<Candidate> & out) {
    out.clear();
    for (int i = 0; i < n; i += BLOCK) {
        const int count = std::min(BLOCK, n - i);
        if (block_max(row + i, count) < threshold) {
            continue;
        }
        for (int j = i; j < i + count; j++) {
            if (row[j] >= threshold) {
                out.push_back({ row[j], j });
            }
        }
    }
}

// The k likeliest, sorted. Keeps a heap of k and skips blocks that hold nothing above its floor.
void collect_top_k(const float * row, int n, int k, std::vector<Candidate> & out) {
    out.clear();
    for (int i = 0; i < n; i += BLOCK) {
        const int count = std::min(BLOCK, n - i);
        if (static_cast<int>(out.size()) == k && block_max(row + i, count) <= out.front().logit) {
            continue;
        }
        for (int j = i; j < i + count; j++) {
            if (!(row[j] > NEG_INF)) {
                continue;
            }
            if (static_cast<int>(out.size()) < k) {
                out.push_back({ row[j], j });
                std::push_heap(out.begin(), out.end());
            } else if (row[j] > out.front().logit) {
                std::pop_heap(out.begin(), out.end());
                out.back() = { row[j], j };
                std::push_heap(out.begin(), out.end());
            }
        }
    }
    std::sort_heap(out.begin(), out.end());
}

// xoshiro256** seeded by splitmix64 (Blackman and Vigna): small state, one per sequence.
class Random {
  public:
    explicit Random(uint64_t seed) {
        for (auto & word : state) {
            seed += 0x9e3779b97f4a7c15ULL;
            uint64_t z = seed;
            z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
            z          = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
            word       = z ^ (z >> 31);
        }
    }

    // Uniform in [0, 1), 53 bits.
    double uniform() {
        const uint64_t result = rotl(state[1] * 5, 7) * 9;
        const uint64_t t      = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= t;
        state[3] = rotl(state[3], 45);
        return static_cast<double>(result >> 11) * 0x1.0p-53;
    }

  private:
    static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

    uint64_t state[4];
};

}  // namespace

struct avllm_sampler {
    avllm_sampling_params                        params;
    int32_t                                      n_vocab;
    std::vector<std::pair<int32_t, float>>       bias;
    std::deque<int32_t>                          window;       // last repeat_last_n tokens
    std::unordered_map<int32_t, int32_t>         window_count;
    std::unordered_map<int32_t, int32_t>         generated_count;
    std::vector<std::pair<int32_t, float>>       saved;        // logits changed in the row
    std::vector<Candidate>                       candidates;
    Random                                       random;

    avllm_sampler(const avllm_sampling_params & params, int32_t n_vocab) :
        params(params), n_vocab(n_vocab), random(params.seed) {}

    bool counts_generated() const { return params.presence_penalty != 0 || params.frequency_penalty != 0; }

    void see(int32_t token) {
        if (params.repeat_penalty == 1.0f || params.repeat_last_n <= 0) {
            return;
        }
        if (static_cast<int32_t>(window.size()) == params.repeat_last_n) {
            auto oldest = window_count.find(window.front());
            if (--oldest->second == 0) {
                window_count.erase(oldest);
            }
            window.pop_front();
        }
        window.push_back(token);
        window_count[token]++;
    }

    void accept(int32_t token) {
        see(token);
        if (counts_generated()) {
            generated_count[token]++;
        }
    }

    void change(float * row, int32_t id, float value) {
        saved.emplace_back(id, row[id]);
        row[id] = value;
    }

    // Bias and penalties touch few entries: change them in the row, put them back afterwards.
    void apply_sparse(float * row) {
        saved.clear();
        for (const auto & [id, value] : bias) {
            change(row, id, value <= -100.0f ? NEG_INF : row[id] + value);
        }
        for (const auto & entry : window_count) {
            const float logit = row[entry.first];
            change(row, entry.first, logit > 0 ? logit / params.repeat_penalty : logit * params.repeat_penalty);
        }
        for (const auto & entry : generated_count) {
            change(row, entry.first, row[entry.first] - params.presence_penalty - entry.second * params.frequency_penalty);
        }
    }

    void restore(float * row) const {
        for (auto entry = saved.rbegin(); entry != saved.rend(); ++entry) {
            row[entry->first] = entry->second;
        }
    }

    int32_t argmax(const float * row, float max) const {
        for (int i = 0; i < n_vocab; i += BLOCK) {
            const int count = std::min(BLOCK, n_vocab - i);
            if (block_max(row + i, count) == max) {
                return static_cast<int32_t>(std::find(row + i, row + i + count, max) - row);
            }
        }
        return -1;
    }

    // Draw from the whole vocabulary: find the block by its sum, then the entry in it.
    int32_t draw_full(const float * row, float max) {
        const float         scale = 1.0f / params.temperature;
        std::vector<double> sums((n_vocab + BLOCK - 1) / BLOCK);
        double              total = 0;
        for (size_t b = 0; b < sums.size(); b++) {
            const int first = static_cast<int>(b) * BLOCK;
            sums[b]         = block_sum_exp(row + first, std::min(BLOCK, n_vocab - first), max, scale);
            total += sums[b];
        }
        if (!std::isfinite(total) || total <= 0) {
            return -1;
        }
        double  left = random.uniform() * total;
        int32_t last = -1;
        for (size_t b = 0; b < sums.size(); b++) {
            if (left >= sums[b]) {
                left -= sums[b];
                continue;
            }
            const int first = static_cast<int>(b) * BLOCK;
            for (int i = first; i < std::min(first + BLOCK, n_vocab); i++) {
                const double weight = row[i] > NEG_INF ? exp_neg((row[i] - max) * scale) : 0.0;
                if (weight > 0) {
                    last = i;
                }
                if ((left -= weight) < 0 && weight > 0) {
                    return i;
                }
            }
        }
        return last >= 0 ? last : argmax(row, max);  // rounding left a remainder
    }

    // Candidates that survive top-k, top-p and min-p.
    void truncate(const float * row, float max) {
        const float floor = params.min_p > 0 ? max + std::log(params.min_p) : NEG_INF;
        if (params.top_k > 0 && params.top_k < n_vocab) {
            collect_top_k(row, n_vocab, params.top_k, candidates);
            const double mass = candidate_mass(0, candidates.size(), max);
            cut_sorted(max, floor, params.top_p < 1 ? params.top_p * mass : std::numeric_limits<double>::infinity());
        } else if (params.top_p < 1) {
            const double wanted = params.top_p * sum_exp(row, n_vocab, max, 1.0f);
            collect_mass(row, max, floor, wanted);
            keep_mass(max, wanted);
        } else {
            collect_above(row, n_vocab, floor, candidates);
        }
    }

    double candidate_mass(size_t first, size_t last, float max) const {
        double mass = 0;
        for (size_t i = first; i < last; i++) {
            mass += exp_neg(candidates[i].logit - max);
        }
        return mass;
    }

    // Collect downwards from the maximum until `wanted` of the mass is in, or min-p ends it.
    void collect_mass(const float * row, float max, float floor, double wanted) {
        for (float depth = 8.0f; depth <= 128.0f; depth *= 2) {
            const float threshold = std::max(max - depth, floor);
            collect_above(row, n_vocab, threshold, candidates);
            if (threshold == floor || candidate_mass(0, candidates.size(), max) >= wanted) {
                return;
            }
        }
    }

    // Keep the likeliest candidates until `wanted` of the mass is in: quickselect, since sorting
    // a flat distribution would cost more than the rest of a step.
    void keep_mass(float max, double wanted) {
        size_t first = 0;
        size_t last  = candidates.size();
        while (last - first > 32) {
            const size_t middle = first + (last - first) / 2;
            std::nth_element(candidates.begin() + first, candidates.begin() + middle, candidates.begin() + last);
            const double mass = candidate_mass(first, middle, max);
            if (mass >= wanted) {
                last = middle;
            } else {
                wanted -= mass;
                first = middle;
            }
        }
        std::sort(candidates.begin() + first, candidates.begin() + last);
        size_t kept = first;
        while (kept < last && (wanted > 0 || kept == 0)) {
            wanted -= exp_neg(candidates[kept++].logit - max);
        }
        candidates.resize(kept);
    }

    void cut_sorted(float max, float floor, double wanted) {
        size_t kept = 0;
        double mass = 0;
        while (kept < candidates.size() && candidates[kept].logit >= floor && mass < wanted) {
            mass += exp_neg(candidates[kept].logit - max);
            kept++;
        }
        candidates.resize(std::max<size_t>(kept, std::min<size_t>(1, candidates.size())));
    }

    int32_t draw_candidates(float max) {
        const float scale = 1.0f / params.temperature;
        double      total = 0;
        for (const auto & candidate : candidates) {
            total += exp_neg((candidate.logit - max) * scale);
        }
        if (candidates.empty() || !std::isfinite(total) || total <= 0) {
            return -1;
        }
        double left = random.uniform() * total;
        for (const auto & candidate : candidates) {
            if ((left -= exp_neg((candidate.logit - max) * scale)) < 0) {
                return candidate.id;
            }
        }
        return candidates.back().id;
    }

    int32_t choose(const float * row) {
        const float max = block_max(row, n_vocab);
        if (!std::isfinite(max)) {
            return -1;
        }
        if (params.temperature < 1e-6f || params.top_k == 1) {
            return argmax(row, max);
        }
        if ((params.top_k <= 0 || params.top_k >= n_vocab) && params.top_p >= 1 && params.min_p <= 0) {
            return draw_full(row, max);
        }
        truncate(row, max);
        return draw_candidates(max);
    }
};

namespace {

// Log-probabilities before every stage, as OpenAI's API defines them.
void fill_logprobs(avllm_sample_job & job, int32_t n_vocab, std::vector<Candidate> & scratch) {
    const float max = block_max(job.logits, n_vocab);
    const float log_sum = max + static_cast<float>(std::log(sum_exp(job.logits, n_vocab, max, 1.0f)));
    job.logprob         = job.logits[job.token] - log_sum;
    job.n_top           = 0;
    if (job.n_logprobs > 0) {
        collect_top_k(job.logits, n_vocab, job.n_logprobs, scratch);
        for (const auto & candidate : scratch) {
            job.top_tokens[job.n_top]     = candidate.id;
            job.top_logprobs[job.n_top++] = candidate.logit - log_sum;
        }
    }
}

void sample_one(avllm_sample_job & job) {
    avllm_sampler & sampler = *job.sampler;
    sampler.apply_sparse(job.logits);
    job.token = sampler.choose(job.logits);
    sampler.restore(job.logits);
    job.n_top = 0;
    if (job.token < 0) {
        return;
    }
    if (job.n_logprobs >= 0) {
        fill_logprobs(job, sampler.n_vocab, sampler.candidates);
    }
    sampler.accept(job.token);
}

}  // namespace

extern "C" {

avllm_sampler * avllm_sampler_new(const avllm_sampling_params * params, int32_t n_vocab, const int32_t * bias_ids, const float * bias_values, int32_t n_bias) {
    auto * sampler = new avllm_sampler(*params, n_vocab);
    for (int32_t i = 0; i < n_bias; i++) {
        sampler->bias.emplace_back(bias_ids[i], bias_values[i]);
    }
    return sampler;
}

void avllm_sampler_free(avllm_sampler * sampler) {
    delete sampler;
}

void avllm_sampler_accept_prompt(avllm_sampler * sampler, const int32_t * tokens, int32_t n_tokens) {
    const int32_t window = std::max(sampler->params.repeat_last_n, 0);
    for (int32_t i = std::max(0, n_tokens - window); i < n_tokens; i++) {
        sampler->see(tokens[i]);
    }
}

void avllm_sample_rows(avllm_sample_job * jobs, int32_t n_jobs, int32_t n_threads) {
    // Waking a thread costs about as much as a few greedy rows.
    const int32_t useful = std::min(n_threads, n_jobs / 4);
    if (useful < 2) {
        for (int32_t i = 0; i < n_jobs; i++) {
            sample_one(jobs[i]);
        }
        return;
    }
    avllm::parallel_for(n_jobs, useful, [jobs](int32_t i) { sample_one(jobs[i]); });
}
}
