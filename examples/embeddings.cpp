// How alike are texts? An embedding is the mean of a text's final hidden states, likeness the cosine between two.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <cmath>
#include <cstdio>
#include <numeric>

std::vector<float> embed(llm::Session& session, const std::string& text) {
    const std::vector<int> ids = session.model().tokenizer().encode(text);
    std::vector<float> sum(static_cast<std::size_t>(session.model().config().hidden_size));
    session.rewind(0);
    session.forward_hidden(ids.data(), static_cast<int>(ids.size()), [&](int, const float* hidden) {
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += hidden[i];  // the mean's direction is the sum's
    });
    return sum;
}

float cosine(const std::vector<float>& a, const std::vector<float>& b) {
    const auto dot = [](const auto& x, const auto& y) {
        return std::inner_product(x.begin(), x.end(), y.begin(), 0.0f);
    };
    return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

int main(int argc, char** argv) {
    try {
        if (argc < 4) throw llm::Error("usage: embeddings MODEL TEXT TEXT...");
        llm::Session session(llm::Model::load(argv[1]));
        const std::vector<float> first = embed(session, argv[2]);
        for (int i = 3; i < argc; ++i) std::printf("%.4f  %s\n", cosine(first, embed(session, argv[i])), argv[i]);
    } catch (const llm::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
