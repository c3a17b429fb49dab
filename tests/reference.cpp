// The whole model against the numbers of the reference, as docs/correctness.md says them.

#include "support.h"

namespace tests {
namespace {

// The figures of a model in docs/correctness.md. Each is asserted at twice its distance from the
// reference: from 0 for logits, from the reference's own perplexity, and at the least one in its last digit.
struct Figures {
    std::vector<std::string> cells;  // F32, Q8_0: largest difference of a logit; perplexity: reference, F32, Q8_0

    explicit Figures(const std::string& model) {
        std::istringstream lines(read_file(repository() / "docs" / "correctness.md"));
        for (std::string line, cell; std::getline(lines, line);) {
            if (line.rfind("| " + model + " ", 0) != 0 || !cells.empty()) continue;
            std::istringstream parts(line.substr(2));
            while (std::getline(parts, cell, '|')) cells.push_back(cell);
            cells.erase(cells.begin());
        }
        REQUIRE_MESSAGE(cells.size() >= 5, "docs/correctness.md has no row of " << model);
    }
    double number(std::size_t i) const { return std::stod(cells[i]); }
    double last_digit(std::size_t i) const {
        const std::size_t end = cells[i].find_last_of("0123456789"), point = cells[i].find('.');
        return point == std::string::npos ? 1 : std::pow(10.0, -static_cast<double>(end - point));
    }
    double logits(DType dtype) const { return 2 * number(dtype == DType::q8_0); }
    double perplexity(DType dtype, double reference) const {
        const std::size_t i = dtype == DType::f32 ? 3 : 4;
        return 2 * std::max(std::fabs(number(i) - reference), last_digit(i) / 2);
    }
};

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

// The best token at each position of the prompt, or one that is as good within the margin.
void check_best(const Json& one, const Logits& logits, double margin) {
    const std::vector<int> best = ints(*one.find("argmax_per_position"));
    for (std::size_t i = 0; i < best.size(); ++i) {
        CAPTURE(i);
        CHECK(*std::max_element(logits[i].begin(), logits[i].end()) - logits[i][usize(best[i])] <= margin);
    }
}

void check_golden(const std::string& name, const std::string& row, const fs::path& path, DType dtype) {
    const JsonDocument document = read_json(test_data() / "golden" / (name + ".json"));
    const Figures figures(row);
    const Model model = load(path, dtype);
    Session session(model, std::min(512, model.config().context_length));
    double worst = 0;
    for (const Json& one : document.root().find("cases")->array()) {
        const std::vector<int> ids = ints(*one.find("ids"));
        CAPTURE(text(one, "prompt"));
        CHECK(model.tokenizer().encode(text(one, "prompt"), llm::Special::parsed) == ids);
        session.rewind(0);
        const Logits logits = logits_of(session, ids);
        worst = std::max(worst, double{distance_to_reference(one, logits.back())});
        check_best(one, logits, 2 * figures.logits(dtype));
        check_greedy(session, one, logits.back(), dtype == DType::f32 ? 1e-3 : 1.0);
    }
    CHECK(worst <= figures.logits(dtype));
    for (const Json& one : document.root().find("perplexity")->array()) {
        std::vector<int> ids = model.tokenizer().encode(text(one, "text"), llm::Special::parsed);
        ids.resize(std::min(ids.size(), usize(one.find("tokens")->whole())));
        const double got = perplexity(session, ids), expected = one.find("ppl")->number();
        CHECK(std::fabs(figures.number(2) - expected) <= figures.last_digit(2) / 2);
        CHECK(std::fabs(got - expected) <= figures.perplexity(dtype, expected));
        MESSAGE(name << " " << name_of(dtype) << ": logits within " << worst << ", perplexity " << got);
    }
}

TEST_CASE("gpt2-tiny gives the reference's numbers in F32") {
    check_golden("gpt2-tiny", "gpt2-tiny", tiny("gpt2-tiny"), DType::f32);
}
TEST_CASE("gpt2-tiny gives nearly the reference's numbers in Q8_0") {
    check_golden("gpt2-tiny", "gpt2-tiny", tiny("gpt2-tiny"), DType::q8_0);
}
TEST_CASE("gemma3-tiny gives the reference's numbers in F32") {
    check_golden("gemma3-tiny", "gemma3-tiny", tiny("gemma3-tiny"), DType::f32);
}
TEST_CASE("gemma3-tiny gives nearly the reference's numbers in Q8_0") {
    check_golden("gemma3-tiny", "gemma3-tiny", tiny("gemma3-tiny"), DType::q8_0);
}
TEST_CASE("GPT-2 124M gives the reference's numbers in F32" * needs("gpt2-124m")) {
    check_golden("gpt2-124m", "GPT-2 124M", real_model("gpt2-124m"), DType::f32);
}
TEST_CASE("GPT-2 124M gives nearly the reference's numbers in Q8_0" * needs("gpt2-124m")) {
    check_golden("gpt2-124m", "GPT-2 124M", real_model("gpt2-124m"), DType::q8_0);
}
TEST_CASE("Gemma 3 270M gives the reference's numbers in F32" * needs(kRealGemma)) {
    check_golden("gemma-3-270m", "Gemma 3 270M", real_model(kRealGemma), DType::f32);
}
TEST_CASE("Gemma 3 270M gives nearly the reference's numbers in Q8_0" * needs(kRealGemma)) {
    check_golden("gemma-3-270m", "Gemma 3 270M", real_model(kRealGemma), DType::q8_0);
}

}  // namespace
}  // namespace tests
