// FORWARD against the numbers of the reference.

#include "support.h"

namespace tests {
namespace {

// A model beside its golden file, and how far F32 logits and the perplexity of Q8_0 may be from it.
struct Golden {
    std::string name;  // of tests/data/golden/NAME.json
    fs::path path;
    float logits;
    double perplexity_q8_0;
};

std::vector<Golden> golden_models() {
    std::vector<Golden> all = {{"gpt2-tiny", tiny("gpt2-tiny"), 3e-4f, 0.02},
                               {"gemma3-tiny", tiny("gemma3-tiny"), 3e-4f, 0.02},
                               {"gemma-3-270m", real_model(kRealGemma), 3e-3f, 0.01},
                               {"gpt2-124m", real_model("gpt2-124m"), 3e-3f, 0.01}};
    all.erase(std::remove_if(all.begin(), all.end(), [](const Golden& g) { return g.path.empty(); }), all.end());
    return all;
}

// The reference's logits after the prompt: all of them, or the 20 largest.
float distance_to_reference(const Json& one, const std::vector<float>& logits) {
    if (const Json* all = one.find("logits")) return distance(logits, floats(*all));
    float largest = 0;
    for (const Json& pair : one.find("top")->array()) {
        const auto expected = static_cast<float>(pair.array()[1].number());
        largest = std::max(largest, std::fabs(logits[usize(pair.array()[0].whole())] - expected));
    }
    return largest;
}

// Follows the reference's greedy text token by token, so that every place is compared: where the reference's first
// token leads by more than the margin, it must be the first here.
void check_greedy(Session& session, const Json& one, std::vector<float> logits, double margin) {
    const std::vector<int> greedy = ints(*one.find("greedy"));
    const std::vector<float> margins = floats(*one.find("greedy_margin"));
    for (std::size_t i = 0; i < greedy.size(); ++i) {
        CAPTURE(i);
        CAPTURE(margins[i]);
        if (margins[i] > margin) CHECK(argmax(logits) == greedy[i]);
        logits = last_logits(session, {greedy[i]});
    }
}

double perplexity(Session& session, const std::vector<int>& ids) {
    session.rewind(0);
    const Logits logits = logits_of(session, ids);
    double sum = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) sum += log_sum_exp(logits[i]) - logits[i][usize(ids[i + 1])];
    return std::exp(sum / static_cast<double>(ids.size() - 1));
}

// F32: the logits after the prompt, and the best token at each of its positions.
void check_exact(const Golden& golden, const Json& one, const Logits& logits) {
    CHECK(distance_to_reference(one, logits.back()) < golden.logits);
    const std::vector<int> best = ints(*one.find("argmax_per_position"));
    for (std::size_t i = 0; i < best.size(); ++i) {
        CAPTURE(i);
        CHECK(*std::max_element(logits[i].begin(), logits[i].end()) - logits[i][usize(best[i])] < 2 * golden.logits);
    }
}

void check_golden(const Golden& golden, DType dtype) {
    const JsonDocument document = golden_numbers(golden.name);
    const bool exact = dtype == DType::f32;
    const Model model = load(golden.path, dtype);
    Session session(model, std::min(512, model.config().context_length));
    for (const Json& one : document.root().find("cases")->array()) {
        const std::vector<int> ids = ints(*one.find("ids"));
        CAPTURE(text(one, "prompt"));
        CHECK(model.tokenizer().encode(text(one, "prompt"), llm::Special::parsed) == ids);
        session.rewind(0);
        const Logits logits = logits_of(session, ids);
        if (exact) check_exact(golden, one, logits);
        check_greedy(session, one, logits.back(), exact ? 1e-3 : 1.0);
    }
    for (const Json& one : document.root().find("perplexity")->array()) {
        std::vector<int> ids = model.tokenizer().encode(text(one, "text"), llm::Special::parsed);
        ids.resize(std::min(ids.size(), usize(one.find("tokens")->whole())));
        const double got = perplexity(session, ids), expected = one.find("ppl")->number();
        MESSAGE(golden.name << " " << name_of(dtype) << ": perplexity " << got << ", reference " << expected);
        CHECK(std::fabs(got / expected - 1) < (exact ? 5e-4 : golden.perplexity_q8_0));
    }
}

TEST_CASE("both models give the reference's numbers in F32") {
    for (const Golden& golden : golden_models()) {
        CAPTURE(golden.name);
        check_golden(golden, DType::f32);
    }
}

TEST_CASE("both models give nearly the reference's numbers in Q8_0") {
    for (const Golden& golden : golden_models()) {
        CAPTURE(golden.name);
        check_golden(golden, DType::q8_0);
    }
}

// Activations of 8 bits make the logits uncertain by some 0.2, four times that at one position of a hundred.
TEST_CASE("the 20 largest logits of the real Gemma are within 0.7 in Q8_0") {
    const fs::path path = real_model(kRealGemma);
    if (path.empty()) return;
    Session session(load(path), 512);
    const JsonDocument document = golden_numbers("gemma-3-270m");
    for (const Json& one : document.root().find("cases")->array()) {
        CAPTURE(text(one, "prompt"));
        session.rewind(0);
        CHECK(distance_to_reference(one, last_logits(session, ints(*one.find("ids")))) < 0.7f);
    }
}

}  // namespace
}  // namespace tests
