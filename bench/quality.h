// How near a model is to a reference, mostly its own file in F32, over a text: perplexity, and what llama-perplexity says
// with --kl-divergence. Like there the text goes through windows of 512 tokens, of whose second half all tokens count.

#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../llm.h"
#include "models.h"
#include "options.h"
#include "output.h"
#include "statistics.h"

namespace bench {

// What one token adds: negative log likelihoods of it, the divergence of all probabilities, and so on.
struct Quality {
    Samples nll, reference_nll, divergence, change;  // change: of the token's probability
    int same_top = 0;

    // The models' logits before the token `next`.
    void add(const float* reference, const float* model, int vocab, int next) {
        reference_nll.push_back(-llm::log_probability(reference, vocab, next));
        nll.push_back(-llm::log_probability(model, vocab, next));
        const double ref_sum = reference[next] + reference_nll.back(), sum = model[next] + nll.back();
        double kl = 0;
        for (int id = 0; id < vocab; ++id) {
            const double p = reference[id] - ref_sum;
            if (p > -60) kl += std::exp(p) * (p - (model[id] - sum));
        }
        divergence.push_back(std::max(kl, 0.0));
        change.push_back(std::exp(-nll.back()) - std::exp(-reference_nll.back()));
        same_top += best(reference, vocab) == best(model, vocab);
    }
  private:
    static int best(const float* logits, int vocab) { return int(std::max_element(logits, logits + vocab) - logits); }
};

// Both models read the windows side by side, some tokens at a time: more logits than those would take gigabytes.
inline Quality compare_logits(llm::Session& reference, llm::Session& model, const std::vector<int>& ids,
                              const Progress& progress) {
    constexpr int kWindow = 512, kTokens = 16;
    const int vocab = model.model().config().vocab_size, bos = model.model().tokenizer().bos();
    const int window = std::min({kWindow, model.context(), reference.context(), int(ids.size())});
    Quality quality;
    for (int start = 0; start + window <= int(ids.size()); start += window) {
        progress(format("quality: %d of %d tokens", start, int(ids.size())));
        std::vector<int> piece(ids.begin() + start, ids.begin() + start + window);
        if (ids[0] == bos) piece[0] = bos;
        for (llm::Session* s : {&reference, &model}) {
            s->rewind(0);
            s->forward(piece.data(), window / 2);
        }
        for (int at = window / 2, n; at < window - 1; at += n) {
            n = std::min(kTokens, window - 1 - at);
            std::vector<float> logits[2];
            for (int k = 0; k < 2; ++k)
                (k ? model : reference).forward_each(piece.data() + at, n, [&](int, const float* x) {
                    logits[k].insert(logits[k].end(), x, x + vocab);
                });
            for (int t = 0; t < n; ++t) {
                const std::size_t row = std::size_t(t) * std::size_t(vocab);
                quality.add(logits[0].data() + row, logits[1].data() + row, vocab, piece[std::size_t(at + t + 1)]);
            }
        }
    }
    return quality;
}

inline Table table_of(const std::string& name, const Quality& q) {
    Table t{name, "quality",
            "",   1,
            true, {{"measure", "quality"}, {"value", "value", 5}, {"error", "±", 5}, {"reference", "reference", 5}}};
    const auto error = [](const Samples& x) { return deviation(x) / std::sqrt(double(x.size())); };
    const auto row = [&](const char* what, double value, double off = NAN, double reference = NAN) {
        t.rows.push_back({{what, value, off, reference}});
    };
    const double perplexity = std::exp(mean(q.nll)), count = double(q.nll.size());
    double squares = 0;
    for (const double c : q.change) squares += c * c;
    Samples sorted = q.divergence;
    std::sort(sorted.begin(), sorted.end());
    row("perplexity", perplexity, perplexity * error(q.nll), std::exp(mean(q.reference_nll)));
    row("KL divergence, mean", mean(q.divergence), error(q.divergence));
    row("KL divergence, median", median(q.divergence));
    row("KL divergence, 99 %", sorted[std::size_t(0.99 * (count - 1))]);
    row("same likeliest token, %", 100 * q.same_top / count);
    row("change of the token's probability, RMS %", 100 * std::sqrt(squares / count));
    row("tokens that count", count);
    return t;
}

inline void quality(const Options& o) {
    const llm::detail::File file(o.text);
    const std::string text = file.text(0, file.size());
    const std::string name = o.name();
    const Earlier earlier(o.compare);
    llm::LoadOptions exact = o.load;
    exact.dtype = llm::DType::f32;
    const llm::Model model = llm::Model::load(name, o.load),
                     reference = llm::Model::load(o.reference.empty() ? name : o.reference, exact);
    const std::vector<int> ids = model.tokenizer().encode(text);
    if (ids != reference.tokenizer().encode(text) || model.config().vocab_size != reference.config().vocab_size)
        throw llm::Error("--reference: " + o.reference + " has other tokens than " + name);
    if (ids.size() < 4) throw llm::Error("-f: " + o.text + " is too short: give four tokens or more");
    llm::Session exactly(reference, 0, o.load.threads), as_it_is(model, 0, o.load.threads);
    const Table table = [&] {
        const Progress progress(o.quiet);
        return table_of(name, compare_logits(exactly, as_it_is, ids, progress));
    }();
    Output out(o.output());
    out.table(table);
    if (!earlier.empty()) out.table(earlier.compare({table}));
    out.end();
}

}  // namespace bench
