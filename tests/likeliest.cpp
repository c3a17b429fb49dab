// LIKELIEST TOKENS: what is drawn from the logits that may be among the best is what all logits give.

#include "small_models.h"
#include "support.h"

namespace tests {
namespace {

using llm::Logit;

using Pairs = std::vector<std::pair<int, float>>;
Pairs pairs(const std::vector<Logit>& logits) {
    Pairs all;
    for (const Logit& one : logits) all.emplace_back(one.id, one.value);
    return all;
}

// The k best of all logits.
std::vector<Logit> sorted(const float* logits, int n, int k) {
    std::vector<Logit> all;
    for (int id = 0; id < n; ++id) all.push_back({id, logits[id]});
    std::sort(all.begin(), all.end(), llm::detail::better);
    all.resize(usize(k));
    return all;
}

// A model with a large vocabulary, whose head is in planes.
Model wide(const char* architecture, int hidden, int vocab, DType dtype = DType::native) {
    llm::Config c;
    c.architecture = architecture;
    c.vocab_size = vocab;
    c.context_length = 64;
    c.hidden_size = c.head_dim = hidden;
    c.intermediate_size = 32;
    c.num_layers = c.num_heads = c.num_kv_heads = 1;
    c.is_local = {false};
    c.norm_eps = 1e-5f;
    c.attention_scale = 1;
    c.rope_theta = c.rope_local_theta = 1e4f;
    llm::LoadOptions options;
    options.dtype = dtype;
    options.threads = 2;
    return Model::random(c, options, 3);
}

TEST_CASE("the best logits are those of the whole head, to the bit, with every set of kernels") {
    for (const detail::Kernels* set : detail::available_kernels()) {
        const Environment forced("LLM_SIMD", set->name);
        for (const auto& [hidden, vocab] : {std::pair{64, 5000}, std::pair{34, 2001}, std::pair{200, 700}})
            for (const DType dtype : {DType::native, DType::f32}) {
                CAPTURE(std::string(set->name));
                const Model model = wide(hidden == 34 ? "gpt2" : "gemma3", hidden, vocab, dtype);
                Session a(model, 0, 2), b(model, 0, 2);
                for (const int k : thinned(std::vector<int>{1, 2, 40, 100, 699})) {
                    const std::vector<int> ids = Random{std::uint64_t(k)}.tokens(3, model.config().vocab_size);
                    const Pairs expected = pairs(sorted(a.forward(ids), model.config().vocab_size, k));
                    CHECK((pairs(b.forward_best(ids.data(), 3, k)) == expected));
                    CHECK((pairs(b.best(k)) == expected));
                    CHECK((pairs(a.best(k)) == expected));
                    CHECK((pairs(sorted(b.logits(), model.config().vocab_size, k)) == expected));  // the whole again
                    CHECK((pairs(b.best(k)) == expected));
                }
            }
    }
}

TEST_CASE("the best logits of nothing, of none and of more than there are") {
    Session session(load(tiny("gemma3-tiny")), 16, 1);
    CHECK_ERROR(session.best(3), "no logits", "call forward first");
    session.forward({2, 3, 4});
    CHECK_ERROR(session.best(0), "number of logits", "0");
    CHECK_ERROR(session.best(100000), "number of logits", "100000");
    CHECK(session.best(5).size() == 5);
    const int id = 1 << 20;
    CHECK_ERROR(session.forward_best(&id, 1, 5), "out of range", "1048576");
    for (const int n : {0, -7}) CHECK(!error_of([&] { session.forward_best(&id, n, 5); }).empty());
    CHECK(session.position() == 3);
}

// Where more than half of the head may be among the best, estimates cost more than they save.
TEST_CASE("after too many candidates the whole head is computed for a while, each time for longer") {
    const Model model = wide("gemma3", 64, 5000);
    Session session(model, 64, 1);
    detail::Likeliest& likeliest = session.data()->transformer.likeliest;
    const int id = 7, groups = model.data().weights.head.w.groups();
    const auto candidates = [&](int k) {  // of how many groups
        session.rewind(0);
        session.forward_best(&id, 1, k);
        return std::count(likeliest.most, likeliest.most + groups, -INFINITY);
    };

    int few = 0, most = 0;
    for (int k = 1; k <= 5000 / 16; ++k) {
        likeliest.resting = likeliest.rest = 0;
        const auto computed = candidates(k);
        CAPTURE(k);
        CAPTURE(computed);
        CHECK(likeliest.resting == (2 * computed > groups ? 8 : 0));
        few += 2 * computed <= groups;
        most += 2 * computed > groups && computed < groups - 8;
    }
    CHECK(few > 10);
    CHECK(most > 10);

    likeliest.resting = likeliest.rest = 0;
    std::vector<int> left;
    for (int step = 0; step < 8 + 16 + 32 + 64 + 64 + 5; ++step) {
        candidates(5000 / 16);
        left.push_back(likeliest.resting);
    }
    std::vector<int> expected;
    for (const int rest : {8, 16, 32, 64, 64})
        for (int step = rest; step >= 0; --step) expected.push_back(step);
    CHECK((left == expected));
}

// Of 4 bits once, the lower halves are 0 or 15, mostly. The norm's bias makes x one-sided, so that they add up.
TEST_CASE("the lower halves of a head that had 4 bits once are not taken for random ones") {
    for (const bool four : {false, true}) {
        CAPTURE(four);
        Gguf file = as_gguf(tiny("gpt2-tiny"), TensorType::f32);
        for (const char* name : {"token_embd.weight", "output_norm.bias"}) {
            std::string& bytes = file.tensor(name).bytes;
            std::vector<float> values(bytes.size() / sizeof(float));
            std::memcpy(values.data(), bytes.data(), bytes.size());
            for (std::size_t i = 0; i < values.size(); ++i) {
                detail::Quants q;
                if (name[0] == 'o') values[i] -= 1;
                else if (four && i % detail::kBlock == 0) {
                    detail::quantize_q4_0(&values[i], detail::kBlock, q);
                    for (std::size_t k = 0; k < detail::kBlock; ++k)
                        values[i + k] = detail::f16_to_f32(q.scale[0]) * static_cast<float>(q.q[k] - 8);
                }
            }
            std::memcpy(bytes.data(), values.data(), bytes.size());
        }
        const Model model = Model::load_bytes(file.bytes());
        CHECK(model.data().weights.has_random_halves == !four);
        Session session(model, 0, 1);
        const std::vector<int> ids = model.tokenizer().encode("First Citizen: Before we proceed any further, hear me");
        for (const int id : ids) {
            const Pairs best = pairs(session.forward_best(&id, 1, 5));
            CHECK((best == pairs(sorted(session.logits(), model.sampleable(), 5))));
        }
    }
}

// Draws as generate() does, but from all logits.
std::vector<int> drawn_from_all(Session& session, const std::vector<int>& prompt, const llm::Sampling& sampling,
                                int n) {
    llm::Sampler sampler(sampling);
    session.rewind(0);
    const float* logits = session.forward(prompt);
    for (const int id : prompt) sampler.accept(id);
    std::vector<int> tokens;
    for (int i = 0; i < n; ++i) {
        const int id = sampler.sample(logits, session.model().sampleable());
        tokens.push_back(id);
        sampler.accept(id);
        if (i + 1 < n) logits = session.forward(&id, 1);
    }
    return tokens;
}
std::vector<int> drawn_by_generate(Session& session, const std::vector<int>& prompt, const llm::Sampling& sampling,
                                   int n) {
    llm::GenerateOptions options;
    options.sampling = sampling;
    options.max_tokens = n;
    options.ignore_end = true;
    options.lookup = sampling.seed % 2 ? 0 : 5;  // up to 3 guesses go through the upper halves, more do not
    session.rewind(0);
    llm::generate(session, prompt, options, nullptr);
    return {session.tokens().begin() + static_cast<std::ptrdiff_t>(prompt.size()), session.tokens().end()};
}

// Texts of n tokens at many seeds and settings. Returns how many tokens were compared.
int compare_texts(const Model& model, const std::vector<std::string>& prompts, int n, int wanted) {
    Session a(model, 0, 2), b(model, 0, 2);
    int compared = 0;
    for (int round = 0; compared < wanted; ++round) {
        llm::Sampling sampling;
        sampling.seed = std::uint64_t(round);
        sampling.temperature = round % 4 == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(round % 9);
        sampling.repeat_penalty = round % 3 == 1 ? 1.3f : round % 7 == 2 ? 0.9f : 1.0f;
        sampling.top_k = round % 5 == 3 ? 5 : 40;
        sampling.top_p = round % 2 ? 0.95f : 1.0f;
        const std::vector<int> prompt = model.tokenizer().encode(prompts[usize(round) % prompts.size()]);
        const std::vector<int> expected = drawn_from_all(a, prompt, sampling, n);
        const std::vector<int> got = drawn_by_generate(b, prompt, sampling, n);
        CAPTURE(round);
        CHECK((got == expected));
        if (got != expected) return 0;
        compared += n;
    }
    return compared;
}

TEST_CASE("generate writes what a loop over all logits draws") {
    for (const detail::Kernels* set : detail::available_kernels()) {
        const Environment forced("LLM_SIMD", set->name);
        const bool is_best = set == detail::available_kernels().back();
        for (const std::string& name : kTinyModels)
            CHECK(compare_texts(load(tiny(name)), {"ROMEO:", "To be, or not", "The", "My lord,\n"}, 125,
                                (is_best ? 10000 : 500) / static_cast<int>(kThinned)) > 0);
    }
}

// How near a row that was left out came, in its own standard deviations.
double nearest(Session& session, const std::vector<int>& ids) {
    detail::SessionData& data = *session.data();
    const detail::Matrix& head = session.model().data().weights.head.w;
    const int n = session.model().sampleable(), blocks = head.cols / detail::kBlock;
    double worst = -100;
    for (const int id : ids) {
        data.transformer.likeliest.resting = 0;
        session.forward_best(&id, 1, 40);
        const detail::Likeliest& likeliest = data.transformer.likeliest;
        const std::vector<float> estimates(likeliest.logits, likeliest.logits + n);
        const std::vector<float> most(likeliest.most, likeliest.most + head.groups());
        const std::vector<Logit> best = likeliest.found[0];
        double bar = INFINITY;
        for (const Logit& one : sorted(session.logits(), n, 40)) bar = std::min(bar, double{one.value});
        for (int row = 0; row < n; ++row) {
            if (most[usize(row / detail::kGroup)] == -INFINITY) continue;  // it was computed
            const auto* const x = data.transformer.normed.tile<detail::ActivationBlock>(0);
            double variance = 0;
            for (int b = 0; b < blocks; ++b) {
                double squares = 0;
                for (const int q : x[b].q) squares += q * q;
                const std::uint8_t* scale = head.sections[0].group(row / detail::kGroup) +
                                            b * detail::BlockQ8Planes::kBytes + 2 * (row % detail::kGroup);
                variance += squares * std::pow(double{detail::f16_at(scale)} * x[b].scale, 2);
            }
            // How far the estimate would have had to be off for this row to be among the best.
            const float exact = session.logits()[row];
            worst = std::max(worst, (exact - estimates[usize(row)]) / std::sqrt(21.25 * variance));
            REQUIRE(exact < bar);
        }
    }
    return worst;
}

TEST_CASE("no row that is left out comes near its bound") {
    for (const std::string& name : kTinyModels) {
        Session session(load(tiny(name)), 0, 1);
        const double worst =
            nearest(session, Random{4}.tokens(40 / static_cast<int>(kThinned), session.model().config().vocab_size));
        MESSAGE(name << ": an estimate is at most " << worst << " standard deviations off");
        CHECK(worst > 1);
        CHECK(worst < 6);
    }
}

TEST_CASE("the real Gemma: generate writes what a loop over all logits draws, in several languages" *
          needs(kRealGemma)) {
    const char* const wanted = std::getenv("LLM_ROUNDS");
    const Model model = load(real_model(kRealGemma));
    CHECK(compare_texts(model,
                        {"The capital of France is", "def fibonacci(n):\n", "Es war einmal ein", "O presidente do",
                         "東京は", "Once upon a time", "#include <stdio.h>\n", "Москва — это", "1, 2, 3, 5, 8,"},
                        100, wanted ? std::atoi(wanted) : 200) > 0);
    Session session(model, 64, 2);
    const double worst = nearest(session, {2, 818, 5279, 529});
    MESSAGE("an estimate is at most " << worst << " standard deviations off");
    CHECK(worst < 6);
}

}  // namespace
}  // namespace tests
