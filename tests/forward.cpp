// FORWARD: the same text on different ways through the model.

#include "support.h"

namespace tests {
namespace {

template <class Check>  // check(model, ids, expected logits): both tiny models in both types, as long as their context
void with_long_text(const Check& check) {
    for (const std::string& name : kTinyModels)
        for (const DType dtype : kDTypes) {
            CAPTURE(name);
            CAPTURE(name_of(dtype));
            const Model model = load(tiny(name), dtype);
            std::vector<int> ids =
                model.tokenizer().encode(read_file(repository() / "LICENSE") + read_file(repository() / "README.md"));
            REQUIRE(ids.size() >= usize(model.config().context_length));
            ids.resize(usize(model.config().context_length));
            Session session(model, 0, 2);
            check(model, ids, logits_of(session, ids));
        }
}

TEST_CASE("prompts in pieces of every size give the same logits") {
    std::vector<std::size_t> sizes = {47, 48, 49, 63, 64, 65, 95, 127, 128, 129, 191, 192, 193, 255, 256, 257, 500};
    for (std::size_t n = 1; n <= 40; ++n) sizes.push_back(n);
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        Session session(model, 0, 2);
        for (const std::size_t piece : thinned(sizes)) {
            session.rewind(0);
            CAPTURE(piece);
            CHECK(distance(logits_of(session, ids, piece), expected) < rounding(model.dtype()));
        }
    });
}

TEST_CASE("forward gives the last of the logits that forward_each gives") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        for (const int n : thinned<int>({1, 2, 11, 12, 13, 24, 25, 63, 64, 65, 200, 255, 256, 257, 500})) {
            if (usize(n) > ids.size()) continue;
            CAPTURE(n);
            Session session(model, 0, 2);
            CHECK(distance(last_logits(session, {ids.begin(), ids.begin() + n}), expected[usize(n - 1)]) <
                  rounding(model.dtype()));
            CHECK(session.position() == n);
        }
    });
}

TEST_CASE("rewinding gives the same logits as starting anew, also to before the sliding window's ring") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        Session session(model, 0, 2);
        const int all = static_cast<int>(ids.size());
        for (const int back : thinned<int>(
                 {all, all - 1, 0, 1, all - 31, all - 32, all - 33, all / 2, 63, 64, 65, 33, all - 300, 200})) {
            const int to = std::max(0, back);
            CAPTURE(to);
            logits_of(session, {ids.begin() + session.position(), ids.end()});
            session.rewind(to);
            CHECK(session.position() == to);
            const Logits got = logits_of(session, {ids.begin() + to, ids.end()}, 37);
            CHECK(distance(got, {expected.begin() + to, expected.end()}) < rounding(model.dtype()));
        }
        // Several times in a row, without anything between that would fill the ring again
        for (const int to : {all - 10, all - 100, all / 3, 40, 39}) session.rewind(to);
        CHECK(distance(logits_of(session, {ids.begin() + 39, ids.end()}), {expected.begin() + 39, expected.end()}) <
              rounding(model.dtype()));
    });
}

TEST_CASE("a context can be filled to its last position and not beyond") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        for (const int context :
             thinned<int>({1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, model.config().context_length})) {
            CAPTURE(context);
            Session session(model, context, 2);
            CHECK(session.context() == context);
            const std::vector<int> some(ids.begin(), ids.begin() + context);
            CHECK(distance(logits_of(session, some, 50), {expected.begin(), expected.begin() + context}) <
                  rounding(model.dtype()));
            CHECK_THROWS_AS(session.forward(ids.data(), 1), llm::Error);
            session.rewind(context - 1);
            CHECK(distance(last_logits(session, {ids[usize(context - 1)]}), expected[usize(context - 1)]) <
                  rounding(model.dtype()));
        }
    });
}

TEST_CASE("every number of threads and every kernel set gives the same logits") {
    with_long_text([&](const Model& model, std::vector<int> ids, Logits expected) {
        if (LLM_TSAN) ids.resize(120), expected.resize(120);  // more threads than cores wait long for each other
        for (const int threads : LLM_TSAN ? std::vector{3} : std::vector{1, 2, 3, 7}) {
            CAPTURE(threads);
            Session session(model, 0, threads);
            CHECK(session.threads() == threads);
            CHECK(distance(logits_of(session, ids, 100), expected) < rounding(model.dtype()));
        }
        const bool gpt2 = model.config().architecture == "gpt2";
        for (const detail::Kernels* set : thinned(detail::available_kernels())) {
            CAPTURE(std::string(set->name));
            const Environment forced("LLM_SIMD", set->name);
            Session session(load(tiny(kTinyModels[gpt2 ? 0 : 1]), model.dtype()), 0, 2);
            CHECK(distance(logits_of(session, ids, 100), expected) < rounding(model.dtype()));
        }
    });
}

TEST_CASE("two sessions of one model in two threads do not disturb each other") {
    const Model model = load(tiny("gemma3-tiny"));
    const std::vector<int> ids = model.tokenizer().encode("Now is the winter of our discontent");
    Session alone(model, 0, 1);
    const Logits expected = logits_of(alone, ids, 3);
    std::vector<std::thread> threads;
    std::array<Logits, 2> got;
    for (Logits& mine : got)
        threads.emplace_back([&] {
            Session session(model, 0, 1);
            for (int i = 0; i < 20; ++i) session.rewind(0), mine = logits_of(session, ids, 3);
        });
    for (std::thread& thread : threads) thread.join();
    CHECK(got[0] == expected);
    CHECK(got[1] == expected);
}

TEST_CASE("a moved session goes on where it was") {
    const Model model = load(tiny("gpt2-tiny"));
    Session fresh(model), moved(model);
    const std::vector<float> expected = last_logits(fresh, {1, 2, 3, 4});
    last_logits(moved, {1, 2});
    Session other(std::move(moved));
    last_logits(other, {3});
    Session target(model, 10);
    target = std::move(other);
    CHECK(distance(last_logits(target, {4}), expected) < rounding(DType::q8_0));
    CHECK(target.position() == 4);
}

TEST_CASE("the foretold memory of a session grows by the global layer's cache alone") {
    const Model model = load(tiny("gemma3-tiny"));
    const llm::Config& c = model.config();
    const std::size_t position = usize(c.num_kv_heads) * usize(2 * c.head_dim) * 2;  // a key and a value of F16
    CHECK(model.session_bytes(512) - model.session_bytes(448) >= 64 * position);
    CHECK(model.session_bytes(512) - model.session_bytes(448) < 2 * 64 * position);
    CHECK_THROWS_AS(model.session_bytes(513), llm::Error);
}

TEST_CASE("hidden states are what the head turns into logits") {
    for (const std::string& name : kTinyModels) {
        CAPTURE(name);
        const Model model = load(tiny(name), DType::f32);
        const llm::Config& c = model.config();
        Session session(model), other(model);
        const std::vector<int> ids = Random{3}.tokens(c.context_length == 256 ? 250 : 300, c.vocab_size);
        const Logits logits = logits_of(other, ids);
        std::vector<float> row(usize(c.hidden_size));
        int calls = 0;
        session.forward_hidden(ids.data(), static_cast<int>(ids.size()), [&](int i, const float* hidden) {
            CHECK(i == calls++);
            for (const int id : {0, 99, c.vocab_size - 1}) {
                model.data().weights.head.w.row(id, row.data());
                const double logit = std::inner_product(row.begin(), row.end(), hidden, 0.0);
                CHECK(std::fabs(logit - logits[usize(i)][usize(id)]) < 1e-3);
            }
        });
        CHECK(calls == static_cast<int>(ids.size()));
        CHECK(session.tokens() == ids);
        CHECK(error_of([&] { session.forward_hidden(ids.data(), 0, nullptr); }).find("0") != std::string::npos);
    }
}

TEST_CASE("a text fills the whole context, ends there, and is the same again after a rewind") {
    for (const std::string& name : kTinyModels) {
        Session session(load(tiny(name)), 0, 2);
        llm::GenerateOptions options;
        options.max_tokens = -1;
        options.ignore_end = true;
        options.sampling.temperature = 0;
        std::string texts[2];
        for (std::string& text : texts) {
            session.rewind(0);
            const llm::Stats stats = llm::generate(session, "ROMEO:", options, [&](std::string_view piece) {
                text += piece;
                return true;
            });
            CHECK(session.position() == session.context());
            CHECK(stats.prompt_tokens + stats.generated == session.context());
        }
        CHECK(texts[0] == texts[1]);
        const int one = 5;
        CHECK_ERROR(session.forward(&one, 1), "1 tokens after " + std::to_string(session.context()), "larger context");
        CHECK_ERROR(generated(session, "more", greedy(5)), "do not fit into " + std::to_string(session.context()));
    }
}

TEST_CASE("after a rewind the logits are those of a session that never went further") {
    for (const std::string& name : kTinyModels) {
        const Model model = load(tiny(name));
        const int context = model.config().context_length;
        std::vector<int> ids;
        std::uint64_t state = 3;
        for (int i = 0; i < context; ++i) ids.push_back(static_cast<int>(detail::next_random(state) % 700));
        Session session(model, 0, 2);
        session.forward(ids.data(), context);
        for (const int keep : {context - 1, context / 2, 33, 1}) {
            session.rewind(keep);
            CHECK(session.position() == keep);
            Session fresh(model, 0, 2);
            fresh.forward(ids.data(), keep);
            const int other[] = {9, 8, 7};
            const int n = std::min(3, context - keep);
            const float *a = session.forward(other, n), *b = fresh.forward(other, n);
            float largest = 0;
            for (int i = 0; i < model.config().vocab_size; ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
            CHECK(largest < 0.1f);  // pieces of another size are rounded differently
            session.rewind(0);
            session.forward(ids.data(), context);
        }
    }
}

}  // namespace
}  // namespace tests
