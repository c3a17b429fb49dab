// Which answer is the likeliest? Each follows the same question, which is read once; log p(answer | question) is the sum
// over the answer's tokens.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

// log softmax(logits)[id]
double log_probability(const float* logits, int vocab_size, int id) {
    const double highest = *std::max_element(logits, logits + vocab_size);
    double sum = 0;
    for (int i = 0; i < vocab_size; ++i) sum += std::exp(logits[i] - highest);
    return logits[id] - highest - std::log(sum);
}

int main(int argc, char** argv) {
    try {
        if (argc < 4) throw llm::Error("usage: choice MODEL QUESTION ANSWER ANSWER...");
        const llm::Model model = llm::Model::load(argv[1]);
        const int vocab_size = model.config().vocab_size;
        llm::Session session(model);
        const std::vector<int> question = model.tokenizer().encode(argv[2]);
        const float* logits = session.forward(question.data(), static_cast<int>(question.size()));
        const std::vector<float> after_question(logits, logits + vocab_size);
        for (int a = 3; a < argc; ++a) {
            const std::vector<int> answer = model.tokenizer().encode(argv[a], llm::Special::as_text, false);
            if (answer.empty()) throw llm::Error("an answer is empty");
            double sum = log_probability(after_question.data(), vocab_size, answer[0]);
            session.rewind(static_cast<int>(question.size()));
            session.forward_each(answer.data(), static_cast<int>(answer.size()), [&](int i, const float* next) {
                const auto following = static_cast<std::size_t>(i) + 1;
                if (following < answer.size()) sum += log_probability(next, vocab_size, answer[following]);
            });
            std::printf("%8.3f  %s\n", sum, argv[a]);
        }
    } catch (const llm::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
