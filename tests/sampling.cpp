// SAMPLING: from logits to a token.

#include "support.h"

namespace tests {
namespace {

constexpr llm::Sampling kPlain = {1.0f, 1.0f, 0.0f, 1.0f, 0, 64, 0};  // no filter: the softmax itself

llm::Sampling with(void (*change)(llm::Sampling&)) {
    llm::Sampling s = kPlain;
    change(s);
    return s;
}

// The probability of each token by the book.
std::vector<double> probabilities(std::vector<double> logits, const llm::Sampling& s, const std::vector<int>& recent) {
    const std::size_t last = std::min(recent.size(), usize(s.repeat_last_n));
    for (const int id : std::set<int>(recent.end() - static_cast<std::ptrdiff_t>(last), recent.end())) {
        double& x = logits[usize(id)];
        x = x > 0 ? x / s.repeat_penalty : x * s.repeat_penalty;
    }
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[usize(a)] > logits[usize(b)]; });
    if (s.top_k > 0) order.resize(std::min(order.size(), usize(s.top_k)));
    const auto weight = [&](int id, double t) { return std::exp((logits[usize(id)] - logits[usize(order[0])]) / t); };
    double total = 0, sum = 0;
    for (const int id : order) total += weight(id, 1);
    std::vector<double> p(logits.size());
    for (const int id : order) {
        if (sum > 0 && (sum >= s.top_p * total || weight(id, 1) < s.min_p)) break;
        sum += weight(id, 1);
        p[usize(id)] = weight(id, s.temperature);
    }
    const double all = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= all;
    return p;
}

TEST_CASE("tokens are drawn with the probabilities that the filters leave") {
    const std::vector<float> logits = {1.0f, -0.5f, 2.0f, 0.25f, -3.0f, 1.5f, 1.5f, -0.75f};
    const std::vector<int> recent = {2, 2, 4, 5};
    const llm::Sampling cases[] = {
        kPlain,
        with([](auto& s) { s.temperature = 0.5f; }),
        with([](auto& s) { s.temperature = 3; }),
        with([](auto& s) { s.top_k = 3; }),
        with([](auto& s) { s.top_k = 2; }),  // cuts between equals
        with([](auto& s) { s.top_k = 1; }),
        with([](auto& s) { s.top_k = 1000; }),
        with([](auto& s) { s.top_p = 0.9999f; }),
        with([](auto& s) { s.top_p = 0.7f; }),
        with([](auto& s) { s.top_p = 0.05f; }),
        with([](auto& s) { s.top_p = 0; }),
        with([](auto& s) { s.min_p = 0.2f; }),
        with([](auto& s) { s.min_p = 1; }),
        with([](auto& s) { s.top_p = 0.8f, s.temperature = 2; }),
        with([](auto& s) { s.repeat_penalty = 1.7f; }),
        with([](auto& s) { s.repeat_penalty = 0.6f; }),
        with([](auto& s) { s.repeat_penalty = 1.7f, s.repeat_last_n = 2; }),
        with([](auto& s) { s.repeat_penalty = 1.7f, s.repeat_last_n = 0; }),
        with([](auto& s) {
            s.temperature = 1.5f, s.top_k = 6, s.top_p = 0.9f, s.min_p = 0.1f, s.repeat_penalty = 1.2f;
        }),
        llm::Sampling(),
    };
    for (std::size_t c = 0; c < std::size(cases); ++c) {
        CAPTURE(c);
        llm::Sampling options = cases[c];
        options.seed = 1234;
        llm::Sampler sampler(options);
        for (const int id : recent) sampler.accept(id);
        const std::vector<double> p = probabilities({logits.begin(), logits.end()}, options, recent);
        constexpr int kDraws = 20000;
        std::vector<int> count(logits.size());
        for (int i = 0; i < kDraws; ++i) ++count[usize(sampler.sample(logits.data(), static_cast<int>(logits.size())))];
        double chi_squared = 0, freedom = -1;
        for (std::size_t id = 0; id < p.size(); ++id) {
            CAPTURE(id);
            if (p[id] == 0) {
                CHECK(count[id] == 0);
                continue;
            }
            chi_squared += (count[id] - kDraws * p[id]) * (count[id] - kDraws * p[id]) / (kDraws * p[id]);
            ++freedom;
        }
        CHECK(chi_squared < freedom + 4 * std::sqrt(2 * freedom) + 0.001);  // once in some 1000 seeds it is more
    }
}

// Each filter at the very edge of what it keeps.
TEST_CASE("a filter keeps what reaches its bound exactly") {
    const auto drawn = [](const std::vector<float>& logits, void (*change)(llm::Sampling&)) {
        llm::Sampler sampler(with(change));
        std::set<int> ids;
        for (int i = 0; i < 400; ++i) ids.insert(sampler.sample(logits.data(), static_cast<int>(logits.size())));
        return ids;
    };
    const float half = std::log(0.5f);
    using Ids = std::set<int>;
    CHECK(drawn({2, 1, 2, 2}, [](auto& s) { s.min_p = 1; }) == Ids{0, 2, 3});
    CHECK(drawn({0, half, half, -9}, [](auto& s) { s.min_p = 0.49f; }) == Ids{0, 1, 2});
    CHECK(drawn({0, half, half, -9}, [](auto& s) { s.min_p = 0.51f; }) == Ids{0});
    CHECK(drawn({1, 1, 1, 1}, [](auto& s) { s.top_p = 0.5f; }) == Ids{0, 1});
    CHECK(drawn({1, 1, 1, 1}, [](auto& s) { s.top_p = 0.51f; }) == Ids{0, 1, 2});
    CHECK(drawn({1, 1, 1, 1}, [](auto& s) { s.top_k = 3; }) == Ids{0, 1, 2});
}

TEST_CASE("a temperature of 0 takes the likeliest token, of equals the first") {
    const std::vector<std::pair<std::vector<float>, int>> cases = {
        {{1, 3, 2}, 1}, {{5, 5, 5}, 0}, {{-INFINITY, 2, 2}, 1}, {{NAN, -7, NAN}, 1}, {{1, INFINITY, 2}, 1}, {{4}, 0}};
    for (const auto& [logits, best] : cases) {
        llm::Sampler greedy(with([](auto& s) { s.temperature = 0; }));
        llm::Sampler one(with([](auto& s) { s.top_k = 1; }));
        CHECK(greedy.sample(logits.data(), static_cast<int>(logits.size())) == best);
        CHECK(one.sample(logits.data(), static_cast<int>(logits.size())) == best);
    }
    llm::Sampler penalized(with([](auto& s) { s.temperature = 0, s.repeat_penalty = 2; }));
    const float logits[] = {3, 2, -1};
    CHECK(penalized.sample(logits, 3) == 0);
    penalized.accept(0);
    CHECK(penalized.sample(logits, 3) == 1);
}

TEST_CASE("the same seed draws the same tokens, another one others") {
    Random random{3};
    std::vector<float> logits(1000);
    for (float& x : logits) x = random.uniform(-1, 1);
    const auto draw = [&](std::uint64_t seed) {
        llm::Sampling options = kPlain;
        options.seed = seed;
        llm::Sampler sampler(options);
        std::vector<int> ids;
        for (int i = 0; i < 50; ++i) ids.push_back(sampler.sample(logits.data(), 1000));
        return ids;
    };
    CHECK(draw(1) == draw(1));
    CHECK(draw(1) != draw(2));
    CHECK(draw(0) != draw(UINT64_MAX));
}

TEST_CASE("logits that are equal, infinite or no numbers can be sampled from") {
    const float inf = INFINITY, values[] = {0.0f, -inf, inf, NAN, -NAN, 3e38f, -3e38f, 1e-40f};
    for (const float first : values)
        for (const float rest : values)
            for (const float temperature : {0.0f, 1e-38f, 0.7f, 1e6f})
                for (const int top_k : {0, 1, 40})
                    for (const float penalty : {1.0f, 1e-6f, 1e6f}) {
                        llm::Sampling options;
                        options.temperature = temperature;
                        options.top_k = top_k;
                        options.repeat_penalty = penalty;
                        options.top_p = top_k ? 0.0f : 1.0f;
                        options.min_p = top_k ? 1.0f : 0.0f;
                        llm::Sampler sampler(options);
                        for (const int id : {0, 3, -1, INT_MAX, INT_MIN}) sampler.accept(id);
                        std::vector<float> logits(50, rest);
                        logits[7] = first;
                        const int id = sampler.sample(logits.data(), 50);
                        CHECK(id >= 0);
                        CHECK(id < 50);
                        if (first == inf && rest != inf && penalty == 1.0f) CHECK(id == 7);
                        if (std::isnan(first) && !std::isnan(rest)) CHECK(id != 7);
                        CHECK(llm::Sampler(options).sample(&first, 1) == 0);
                    }
    llm::Sampling even;
    even.temperature = 1;
    even.top_k = 0;
    even.top_p = 1;
    even.min_p = 0;
    llm::Sampler sampler(even);
    std::vector<float> logits(10, -5.0f);
    int counts[10] = {};
    for (int i = 0; i < 10000; ++i) ++counts[sampler.sample(logits.data(), 10)];
    for (const int count : counts) CHECK(count == doctest::Approx(1000).epsilon(0.15));
}

TEST_CASE("candidates that are no numbers are the last ones, as among all logits") {
    const std::vector<float> logits = {NAN, 1, 2, NAN, 0.5f};
    std::vector<llm::Logit> candidates;
    for (std::size_t i = 0; i < logits.size(); ++i) candidates.push_back({static_cast<int>(i), logits[i]});
    llm::Sampling options;
    options.top_p = 1;
    options.min_p = 0;
    for (int seed = 0; seed < 50; ++seed) {
        options.seed = static_cast<std::uint64_t>(seed);
        options.temperature = seed % 2 ? 1.0f : 0.0f;
        llm::Sampler one(options), other(options);
        const int id = one.sample(candidates);
        CHECK(id == other.sample(logits.data(), static_cast<int>(logits.size())));
        CHECK(!std::isnan(logits[usize(id)]));
    }
}

TEST_CASE("sampling options out of range are refused by name, with their value and what is possible") {
    const struct {
        const char* name;
        void (*change)(llm::Sampling&);
        std::vector<std::string> parts;
    } cases[] = {
        {"temperature", [](auto& s) { s.temperature = -0.1f; }, {"-0.1", "0 (the likeliest token)"}},
        {"temperature", [](auto& s) { s.temperature = NAN; }, {"nan"}},
        {"temperature", [](auto& s) { s.temperature = INFINITY; }, {"inf"}},
        {"top_p", [](auto& s) { s.top_p = 1.01f; }, {"1.01", "0 to 1"}},
        {"top_p", [](auto& s) { s.top_p = NAN; }, {"nan"}},
        {"min_p", [](auto& s) { s.min_p = -0.5f; }, {"-0.5", "0 to 1"}},
        {"min_p", [](auto& s) { s.min_p = 1.5f; }, {"1.5"}},
        {"repeat_penalty", [](auto& s) { s.repeat_penalty = 0; }, {"positive"}},
        {"repeat_penalty", [](auto& s) { s.repeat_penalty = -INFINITY; }, {"inf"}},
        {"top_k", [](auto& s) { s.top_k = -1; }, {"-1"}},
        {"repeat_last_n", [](auto& s) { s.repeat_last_n = -1; }, {"-1"}},
        {"repeat_last_n", [](auto& s) { s.repeat_last_n = INT_MAX; }, {"16777216"}},
    };
    for (const auto& one : cases) {
        const std::string message = error_of([&] { llm::Sampler sampler(with(one.change)); });
        CAPTURE(message);
        CHECK(message.rfind(one.name, 0) == 0);
        for (const std::string& part : one.parts) CHECK(message.find(part) != std::string::npos);
    }
    llm::Sampler sampler;
    const float logits[] = {1};
    CHECK_ERROR(sampler.sample(logits, 0), "no logits", "0");
    CHECK_ERROR(sampler.sample(logits, -3), "no logits", "-3");
    CHECK_ERROR(sampler.sample(nullptr, 1), "no logits");
}

TEST_CASE("the best of a vocabulary of any size are those of a sort") {
    Random random{4};
    for (int n = 1; n <= 300; ++n) {
        std::vector<float> logits(usize(n));
        for (float& x : logits) x = std::floor(random.uniform(-5, 20));  // some are equal
        if (n % 3 == 0) logits[usize(n / 2)] = NAN;
        std::vector<std::pair<float, int>> sorted;  // logit, -id
        for (int id = 0; id < n; ++id)
            sorted.emplace_back(std::isnan(logits[usize(id)]) ? -INFINITY : logits[usize(id)], -id);
        std::sort(sorted.rbegin(), sorted.rend());
        for (const int k : {1, 2, 40}) {
            if (k > n) continue;
            CAPTURE(n);
            CAPTURE(k);
            const auto best = llm::detail::take_best(logits.data(), n, k);
            CHECK(std::equal(best.begin(), best.end(), sorted.begin(), [](const llm::Logit& a, const auto& b) {
                return a.value == b.first && a.id == -b.second;
            }));
        }
    }
}

TEST_CASE("of a large vocabulary only the best are drawn") {
    Random random{5};
    std::vector<float> logits(262144);
    for (float& x : logits) x = random.uniform(0, 10);
    std::vector<float> sorted = logits;
    std::sort(sorted.rbegin(), sorted.rend());
    llm::Sampler sampler(with([](auto& s) { s.top_k = 40, s.temperature = 100; }));
    std::set<int> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(sampler.sample(logits.data(), 262144));
    CHECK(seen.size() == 40);
    for (const int id : seen) CHECK(logits[usize(id)] >= sorted[39]);
}

}  // namespace
}  // namespace tests
