// The residual stream in numbers: what a text's last token is after each layer. A row is a layer: the vector's length, the
// cosine between it and that of the layer before, and its first four values.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <cmath>
#include <cstdio>
#include <numeric>

int main(int argc, char** argv) {
    try {
        if (argc != 3) throw llm::Error("usage: residual MODEL TEXT");
        llm::Session session(llm::Model::load(argv[1]));
        const auto width = static_cast<std::size_t>(session.model().config().hidden_size);
        std::vector<float> before;
        session.on_layer([&](int layer, int, int n, const float* x) {
            const std::vector<float> now(x + static_cast<std::size_t>(n - 1) * width,
                                         x + static_cast<std::size_t>(n) * width);
            const auto dot = [](const auto& a, const auto& b) {
                return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
            };
            const double length = std::sqrt(dot(now, now));
            if (before.empty()) std::printf("layer %2d  length %7.2f  cosine   -   ", layer, length);
            else
                std::printf("layer %2d  length %7.2f  cosine %5.2f", layer, length,
                            dot(now, before) / (length * std::sqrt(dot(before, before))));
            std::printf("  %7.2f %7.2f %7.2f %7.2f\n", double{now[0]}, double{now[1]}, double{now[2]}, double{now[3]});
            before = now;
        });
        session.forward(session.model().tokenizer().encode(argv[2]));
    } catch (const llm::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
