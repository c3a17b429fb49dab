// ATTENTION: softmax(scale * q K^T) V against the plain formula in double.

#include "support.h"

namespace tests {
namespace {

using detail::CacheFormat;

// Random keys and values of all positions in a cache, and as the cache holds them.
struct Filled {
    llm::Config config;
    detail::KvCache cache;
    std::vector<std::vector<float>> keys, values;  // [position][num_kv_heads * head_dim]

    Filled(const llm::Config& c, bool local, int context, CacheFormat format)
        : config(c), cache(c, local, context, format) {
        cache.memory = detail::Buffer(cache.bytes());
    }
    // Adds a position, as forward does before its queries look at it.
    void add(Random& random) {
        const int position = static_cast<int>(keys.size()), d = config.head_dim;
        std::vector<float> key = random.values(config.num_kv_heads * d, -2, 2),
                           value = random.values(config.num_kv_heads * d);
        for (int h = 0; h < config.num_kv_heads; ++h) {
            const auto put =
                cache.value_bytes() == 2 ? &detail::KvCache::store<std::uint16_t> : &detail::KvCache::store<float>;
            (cache.*put)(detail::scalar::kernels, h, position, key.data() + h * d, value.data() + h * d);
        }
        if (cache.value_bytes() == 2)
            for (std::vector<float>* x : {&key, &value})
                for (float& v : *x) v = detail::f16_to_f32(detail::f32_to_f16(v));
        keys.push_back(key);
        values.push_back(value);
    }
    // One query head's output for a token at `position`, which sees `window` positions with its own (0: all).
    std::vector<double> plain(const float* q, int head, int position, int window) const {
        const int d = config.head_dim, kv = head * config.num_kv_heads / config.num_heads * d;
        const int first = window ? std::max(0, position - window + 1) : 0;
        std::vector<double> scores, out(usize(d));
        for (int p = first; p <= position; ++p)
            scores.push_back(config.attention_scale * std::inner_product(q, q + d, keys[usize(p)].data() + kv, 0.0));
        const double highest = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& s : scores) sum += s = std::exp(s - highest);
        for (int p = first; p <= position; ++p) {
            const double weight = scores[usize(p - first)] / sum;
            const float* value = values[usize(p)].data() + kv;
            for (int i = 0; i < d; ++i) out[usize(i)] += weight * value[i];
        }
        return out;
    }
};

struct Heads {
    int heads, kv_heads, head_dim;
};

TEST_CASE("attention is the plain softmax, for tokens one by one and together, over all positions and over a window") {
    const Heads shapes[] = {{1, 1, 2},  {4, 4, 10}, {4, 2, 16}, {6, 1, 33},
                            {3, 3, 64}, {8, 2, 65}, {7, 1, 34}, {2, 1, 256}};
    Random random{1};
    for (const Heads& s : shapes)
        for (const CacheFormat format : {CacheFormat::f32, CacheFormat::f16})
            for (const int window : {0, 1, 32, 70}) {
                llm::Config c = shape("gemma3", 32, s.heads, s.kv_heads, s.head_dim, 32);
                c.sliding_window = std::max(window, 1);
                c.context_length = 400;
                c.is_local = {window > 0, window > 0};  // two layers, whose caches lie in one memory
                for (const detail::Kernels* kernels : thinned(detail::available_kernels())) {
                    const int threads = 1 + random.below(3);
                    CAPTURE(s.heads);
                    CAPTURE(s.head_dim);
                    CAPTURE(window);
                    CAPTURE(threads);
                    CAPTURE(format == CacheFormat::f16);
                    CAPTURE(std::string(kernels->name));
                    detail::ThreadPool pool(threads);
                    detail::Attention attention{pool, *kernels, c};
                    Filled filled(c, window > 0, c.context_length, format);
                    double worst = 0;
                    for (const int tokens : {1, 1, 3, 12, 61, 1, 25, 100, 1}) {
                        const int position = static_cast<int>(filled.keys.size()), width = s.heads * s.head_dim;
                        for (int t = 0; t < tokens; ++t) filled.add(random);
                        const int stride = width + 7;
                        const std::vector<float> q = random.values(tokens * stride, -2, 2);
                        std::vector<float> out(usize(tokens * width) + 1, 77);
                        attention.run({{&filled.cache, q.data(), usize(stride), tokens, position, window, out.data()}});
                        CHECK(out.back() == 77);
                        const int step = tokens > 20 ? 7 : 1;
                        for (int t = 0; t < tokens; t += step)
                            for (int h = 0; h < s.heads; ++h) {
                                const auto exact =
                                    filled.plain(q.data() + t * stride + h * s.head_dim, h, position + t, window);
                                for (int i = 0; i < s.head_dim; ++i) {
                                    const double off =
                                        std::fabs(out[usize(t * width + h * s.head_dim + i)] - exact[usize(i)]);
                                    worst = std::max(worst, std::isnan(off) ? INFINITY : off);
                                }
                            }
                    }
                    CHECK(worst < 1e-5);
                }
            }
}

TEST_CASE("a local layer's cache holds its window and a batch, a global one's the context") {
    llm::Config c = shape("gemma3", 32, 2, 1, 16, 32);
    c.context_length = 100000;
    c.sliding_window = 512;
    c.is_local = {true, true};
    const detail::KvCache local(c, true, 100000, CacheFormat::f16), global(c, false, 100000, CacheFormat::f16);
    CHECK(local.num_slots >= 512 + detail::kBatch);
    CHECK(local.num_slots < 512 + detail::kBatch + 64);
    CHECK(global.num_slots >= 100000);
    CHECK(global.num_slots < 100064);
    CHECK(detail::KvCache(c, true, 50, CacheFormat::f16).num_slots == 64);
    CHECK(detail::KvCache(c, true, 640, CacheFormat::f32).bytes() ==
          2 * detail::KvCache(c, true, 640, CacheFormat::f16).bytes());
}

// Scores far apart, equal, or growing all the time, so that what was summed up is scaled down again and again.
TEST_CASE("attention keeps its precision whatever the order of the scores") {
    llm::Config c = shape("gemma3", 32, 1, 1, 2, 32);
    c.context_length = 512;
    c.is_local = {false, false};
    c.attention_scale = 1;
    for (const detail::Kernels* kernels : detail::available_kernels())
        for (const float slope : {0.0f, 0.3f, -0.3f, 50.0f, -50.0f}) {
            CAPTURE(std::string(kernels->name));
            CAPTURE(slope);
            detail::ThreadPool pool(2);
            detail::Attention attention{pool, *kernels, c};
            Random random{1};
            Filled filled(c, false, 512, CacheFormat::f32);
            for (int p = 0; p < 500; ++p) {
                filled.add(random);
                filled.keys.back()[0] = slope * static_cast<float>(p);
                filled.cache.store<float>(*kernels, 0, p, filled.keys.back().data(), filled.values.back().data());
            }
            const float q[] = {1, 0};
            float out[2];
            attention.run({{&filled.cache, q, 2, 1, 499, 0, out}});
            const auto exact = filled.plain(q, 0, 499, 0);
            CHECK(std::fabs(out[0] - exact[0]) < 1e-5);
            CHECK(std::fabs(out[1] - exact[1]) < 1e-5);
        }
}

}  // namespace
}  // namespace tests
