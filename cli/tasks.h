// What build/llm does besides writing text: lists of tokens, the likeliest next ones, a text's perplexity, and what is in
// a model's file. Each task returns what it has to print.

#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../llm.h"
#include "flags.h"

namespace cli {

// One line of valid UTF-8 without tabs, whatever the bytes.
inline std::string escaped(std::string_view bytes) {
    std::string text;
    for (std::size_t i = 0, n = 0; i < bytes.size(); i += n) {
        const auto [character, length] = llm::detail::utf8_decode(bytes, i);
        const bool control = character < ' ' || (character >= 0x7F && character < 0xA0);
        const bool plain = character <= 0x10FFFF && !control && character != '\\';
        const int c = static_cast<unsigned char>(bytes[i]);
        n = plain ? length : 1;
        const char* const name = c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : nullptr;
        text += plain ? std::string(bytes.substr(i, n)) : name ? name : format("\\x%02x", c);
    }
    return text;
}

inline std::string list_tokens(const llm::Tokenizer& tokenizer, const std::vector<int>& ids) {
    std::string text;
    for (const int id : ids) text += format("%d\t%s\n", id, escaped(tokenizer.piece(id)).c_str());
    return text;
}

inline std::string list_top(llm::Session& session, const std::vector<int>& prompt, int count) {
    const llm::Tokenizer& tokenizer = session.model().tokenizer();
    const int vocab = session.model().config().vocab_size, known = session.model().sampleable();
    const float* logits = session.forward(prompt);
    std::vector<std::pair<float, int>> best;
    for (int id = 0; id < known; ++id) best.emplace_back(-logits[id], id);
    const auto end = best.begin() + std::min(count, known);
    std::partial_sort(best.begin(), end, best.end());
    std::string text;
    std::for_each(best.begin(), end, [&](const std::pair<float, int>& candidate) {
        const int id = candidate.second;
        text += format("%d\t%.7g\t%.6g\t%s\n", id, double{logits[id]},
                       std::exp(llm::log_probability(logits, vocab, id)), escaped(tokenizer.piece(id)).c_str());
    });
    return text;
}

// exp of the mean negative log likelihood of all tokens but the first. A text longer than the context goes through
// windows that advance by half a context; tokens that one has counted, the next only reads: so each is counted once,
// later than the first window with half a context before it. Each window begins with <bos> if the text does (Gemma).
inline std::string perplexity(llm::Session& session, const std::vector<int>& ids,
                              const std::function<void(float done, const char* what)>& progress) {
    const int vocab = session.model().config().vocab_size, context = session.context();
    const int total = static_cast<int>(ids.size());
    if (total < 2) throw llm::Error("--perplexity: nothing to predict: give two tokens or more");
    if (context < 2) throw llm::Error("--perplexity: nothing fits into a context of 1: give -c 2 or more");
    if (*std::max_element(ids.begin(), ids.end()) >= vocab) throw llm::Error("--perplexity: a token has no embedding");
    double nll = 0;
    for (int end = context, counted = 1; counted < total; end += context / 2) {
        const int start = end - context, stop = std::min(end, total);
        std::vector<int> window(ids.begin() + start, ids.begin() + stop);
        if (ids[0] == session.model().tokenizer().bos()) window[0] = ids[0];
        session.rewind(0);
        session.forward(window.data(), counted - start);
        nll -= llm::score(session, {window.begin() + (counted - start), window.end()});
        counted = stop;
        if (progress) progress(float(counted) / float(total), "perplexity");
    }
    nll /= total - 1;
    return format("perplexity: %#.6g  (%d tokens, nll %#.6g)\n", std::exp(nll), total, nll);
}

// What is in the file at `path`, and what it became.
inline std::string describe(const llm::Session& session, const std::string& path) {
    const llm::Model& model = session.model();
    const llm::Config& c = model.config();
    const llm::ModelInfo& info = model.info();
    const auto local = std::count(c.is_local.begin(), c.is_local.end(), true);
    std::string tensors, outside;
    for (const auto& [type, count] : info.tensors) tensors += format("%d %s, ", count, type.c_str());
    for (const auto& [kind, count] : info.outside) outside += format("; %d of %s", count, kind.c_str());
    const auto mega = [](auto count) { return double(count) / 1e6; };
    std::string formats;
    for (const auto& [name, held] : info.formats)
        formats += format("%d %s of %.1f MB, ", held.matrices, name.c_str(), mega(held.bytes));
    return format("model         %s (%s)\n", path.c_str(), info.format.c_str()) +
           format("architecture  %s\n", c.architecture == "gpt2" ? "GPT-2" : "Gemma 3") +
           format("parameters    %.2f M\n", mega(info.parameters)) + format("layers        %d", c.num_layers) +
           (local ? format(", %d of them see %d positions", int(local), c.sliding_window) : "") + "\n" +
           format("sizes         hidden %d, feed-forward %d, ", c.hidden_size, c.intermediate_size) +
           format("heads %d of %d, KV heads %d\n", c.num_heads, c.head_dim, c.num_kv_heads) +
           format("vocabulary    %d tokens, head %s\n", c.vocab_size, c.tied_head ? "tied" : "untied") +
           format("context       %d positions of %d\n", session.context(), c.context_length) +
           format("tensors       %s%d ignored%s\n", tensors.c_str(), info.ignored, outside.c_str()) +
           format("matrices      %s%d quantized, ", formats.c_str(), info.quantized) +
           format("%d exact, %d fused\n", info.exact, info.fused) +
           format("memory        %.1f MB weights, ", mega(info.weight_bytes)) +
           format("%.1f MB KV cache and scratch\n", mega(model.session_bytes(session.context())));
}

}  // namespace cli
