// What would the model say after each layer? The logit lens (nostalgebraist 2020): each layer's residual stream is put in
// place of the last one's, so that the head reads it. A row is a layer, the last on top, a column a token of the text, a
// cell the likeliest next token: on a terminal the brighter, the likelier.
//
// With two more texts it then steers: what distinguishes the second's last token from the first's, in the middle layer, is
// added there, times STRENGTH, to every token, the text's own too.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace {

using Residuals = std::vector<std::vector<float>>;  // of each layer [tokens, hidden_size]

Residuals read(llm::Session& session, const std::vector<int>& ids) {
    const auto width = static_cast<std::size_t>(session.model().config().hidden_size);
    Residuals residuals(static_cast<std::size_t>(session.model().config().num_layers));
    session.on_layer([&](int layer, int, int n, const float* x) {
        auto& all = residuals[static_cast<std::size_t>(layer)];
        all.insert(all.end(), x, x + static_cast<std::size_t>(n) * width);
    });
    session.rewind(0);
    session.forward(ids);
    session.on_layer(nullptr);
    return residuals;
}

// Seven columns of a piece's text; what is not ASCII is a question mark.
std::string cell(const std::string& piece, double probability, bool colors) {
    std::string text;
    for (const char c : piece)
        if ((c & 0xC0) != 0x80) text += c == ' ' ? '_' : c == '\n' ? '|' : c > ' ' && c < 127 ? c : '?';
    text.resize(7, ' ');
    char color[24];
    std::snprintf(color, sizeof color, "\033[38;5;%dm", 238 + static_cast<int>(17 * probability));
    return colors ? color + text + "\033[0m" : text;
}

void show_lens(llm::Session& session, const std::vector<int>& ids) {
    const llm::Config& config = session.model().config();
    const llm::Tokenizer& tokenizer = session.model().tokenizer();
    const bool colors = isatty(STDOUT_FILENO) && !std::getenv("NO_COLOR");
    const Residuals residuals = read(session, ids);
    for (int shown = config.num_layers; shown-- > 0;) {
        const std::vector<float>& from = residuals[static_cast<std::size_t>(shown)];
        session.on_layer([&](int layer, int position, int n, float* x) {
            if (layer == config.num_layers - 1)
                std::copy_n(&from[std::size_t(position) * std::size_t(config.hidden_size)], n * config.hidden_size, x);
        });
        session.rewind(0);
        std::string row;
        session.forward_each(ids.data(), static_cast<int>(ids.size()), [&](int, const float* logits) {
            const int best = static_cast<int>(std::max_element(logits, logits + session.model().sampleable()) - logits);
            row += " " +
                   cell(tokenizer.piece(best), std::exp(llm::log_probability(logits, config.vocab_size, best)), colors);
        });
        std::printf("%5d%s\n", shown, row.c_str());
    }
    session.on_layer(nullptr);
    std::printf("     ");
    for (const int id : ids) std::printf(" %s", cell(tokenizer.piece(id), 1, colors).c_str());
    std::printf("\n");
}

void steer(llm::Session& session, const std::vector<int>& ids, const char* from, const char* to, float strength) {
    const std::size_t width = static_cast<std::size_t>(session.model().config().hidden_size);
    const int middle = session.model().config().num_layers / 2;
    const auto last = [&](const char* text) {
        const std::vector<float> all =
            read(session, session.model().tokenizer().encode(text))[static_cast<std::size_t>(middle)];
        return std::vector<float>(all.end() - static_cast<std::ptrdiff_t>(width), all.end());
    };
    const std::vector<float> without = last(from);
    std::vector<float> direction = last(to);
    for (std::size_t i = 0; i < width; ++i) direction[i] = strength * (direction[i] - without[i]);

    session.on_layer([&](int layer, int, int n, float* x) {
        for (std::size_t i = 0; layer == middle && i < static_cast<std::size_t>(n) * width; ++i)
            x[i] += direction[i % width];
    });
    session.rewind(0);
    llm::GenerateOptions options;
    options.max_tokens = 60;
    llm::generate(session, ids, options, [](std::string_view text) {
        return std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
    });
    std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 3 && argc != 6) throw llm::Error("usage: lens MODEL TEXT [FROM TO STRENGTH]");
    llm::Session session(llm::Model::load(argv[1]));
    const std::vector<int> ids = session.model().tokenizer().encode(argv[2]);
    show_lens(session, ids);
    if (argc == 6) steer(session, ids, argv[3], argv[4], std::strtof(argv[5], nullptr));
} catch (const llm::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
