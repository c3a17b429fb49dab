// build/bench --journey: the way of one token through a model as a picture. A row is an operation of a real step: what it
// multiplies with what, how long it takes in each layer, and in all of them. A matrix is (rows, columns).

#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "../llm.h"
#include "models.h"
#include "options.h"
#include "output.h"
#include "picture.h"
#include "plot.h"
#include "statistics.h"

namespace bench {

// An operation of a step, by what it reports of itself.
struct Stop {
    std::string part, operation;
    double bytes = 0;             // of a step
    std::vector<Samples> layers;  // seconds of each step; outside of the layers there is one of them
    double seconds_of(std::size_t i) const { return median(layers[i]); }
    double seconds() const {
        double all = 0;
        for (std::size_t i = 0; i < layers.size(); ++i) all += seconds_of(i);
        return all;
    }
};

// The stops in the order in which a token comes by, of the `steps` tokens that are written after position `begin`.
inline std::vector<Stop> journey(const llm::Model& model, int threads, int begin, int steps) {
    const int best = std::min(llm::Sampling().top_k, model.config().vocab_size);
    llm::Session session(model, begin + steps, threads);
    llm::Sampler sampler;
    std::vector<Stop> stops;
    const auto add = [&](const llm::Timing& t) {
        if (t.part == std::string("step")) return;
        auto stop = std::find_if(stops.begin(), stops.end(),
                                 [&](const Stop& s) { return s.part == t.part && s.operation == t.operation; });
        if (stop == stops.end()) {
            stops.push_back({t.part, t.operation, 0, {}});
            stop = stops.end() - 1;
        }
        const auto layer = static_cast<std::size_t>(std::max(t.layer, 0));
        if (stop->layers.size() <= layer) stop->layers.resize(layer + 1);
        stop->layers[layer].push_back(t.seconds);
        stop->bytes += double(t.bytes);
    };
    for (int id = random_tokens(model, 1)[0]; session.position() < begin + steps;) {
        if (session.position() == begin) session.on_timing(add);
        id = sampler.sample(session.forward_best(&id, 1, best));
    }
    for (Stop& s : stops) s.bytes /= steps;
    return stops;
}

// What is multiplied or read, in the sizes of the model.
inline std::string shape_of(const Stop& s, const llm::Config& c, int position) {
    const int q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
    const int gate = c.architecture == "gpt2" ? 1 : 2;  // gate and up
    const auto product = [](int rows, int cols) { return format("(%d, %d) x %d", rows, cols, cols); };
    if (s.operation == "embedding") return format("a row of (%d, %d)", c.vocab_size, c.hidden_size);
    if (s.operation == "angles") return format("position %d: %d cos, sin", position, c.head_dim / 2);
    if (s.operation == "norm_rotate") return format("%d + %d heads of %d", c.num_heads, c.num_kv_heads, c.head_dim);
    if (s.part == "norm") return format("%d", c.hidden_size);
    if (s.part == "qkv") return product(q + 2 * kv, c.hidden_size);
    if (s.part == "attn_out") return product(c.hidden_size, q);
    if (s.part == "up") return product(gate * c.intermediate_size, c.hidden_size);
    if (s.part == "down") return product(c.hidden_size, c.intermediate_size);
    if (s.part == "activation") return format("%d", c.intermediate_size);
    if (s.operation == "screen") return format("(%d, %d), upper halves", c.vocab_size, c.hidden_size);
    if (s.operation == "rows") return "rows that may be the best";
    if (s.part == "lm_head") return product(c.vocab_size, c.hidden_size);
    if (s.operation == "kv_store") return format("k, v: %d x %d", c.num_kv_heads, c.head_dim);
    if (s.operation == "qk") return format("%d q x up to %d k", c.num_heads, position + 1);
    if (s.operation == "av") return format("%d p x up to %d v", c.num_heads, position + 1);
    return "";
}

constexpr double kRow = 30, kTop = 150, kCells = 590, kCellsEnd = 1180, kBars = 1210, kBarsEnd = 1470;

// cell: seconds of the longest one of any operation; longest: of an operation in all layers; all: of the step.
inline void draw_stop(plot::Canvas& canvas, double y, const Stop& s, const std::string& shape, double cell,
                      double longest, double all) {
    const double base = y + 15, length = (kBarsEnd - kBars) * s.seconds() / longest;
    const auto part = std::find(std::begin(kPartNames), std::end(kPartNames), s.part) - std::begin(kPartNames);
    const plot::Color color = kPartColors[std::min<std::ptrdiff_t>(part, kOther)];
    canvas.disc(34, base - 5, 5, color);
    canvas.text(56, base, s.part == s.operation ? s.part : s.part + ", " + s.operation, 11, plot::kInk);
    canvas.text(275, base, shape, 10, plot::kFaint);
    if (s.bytes > 0) canvas.text(kCells - 20, base, format("%.2f", s.bytes / 1e6), 10, plot::kFaint, 1);
    const double width = (kCellsEnd - kCells) / double(s.layers.size());
    for (std::size_t i = 0; i < s.layers.size() && s.layers.size() > 1; ++i) {
        const double x = kCells + width * double(i);
        canvas.rect(x, y, x + width - 2, y + kRow - 6, plot::kGrid);
        canvas.rect(x, y, x + width - 2, y + kRow - 6, color, std::sqrt(s.seconds_of(i) / cell));
    }
    canvas.rect(kBars, y + 2, kBars + std::max(1.0, length), y + kRow - 8, color);
    canvas.text(kBars + std::max(1.0, length) + 8, base,
                format("%.0f, %.1f %%", 1e6 * s.seconds(), 100 * s.seconds() / all), 10, plot::kInk);
}

inline void draw_journey(const Options& o) {
    const std::string name = o.name();
    const llm::Model model = make_model(name, !o.shape.empty(), o.load);
    const llm::Config& c = model.config();
    const int position = std::min(128, c.context_length / 2);
    const std::vector<Stop> stops = journey(model, o.load.threads, position, std::min(40, c.context_length - position));

    double all = 0, longest = 0, longest_cell = 0;
    for (const Stop& s : stops) {
        all += s.seconds();
        longest = std::max(longest, s.seconds());
        for (std::size_t i = 0; i < s.layers.size() && s.layers.size() > 1; ++i)
            longest_cell = std::max(longest_cell, s.seconds_of(i));
    }

    plot::Canvas canvas(kWidth, int(kTop + kRow * double(stops.size()) + 50), plot::rgb(0xf7f4ec));
    canvas.text(40, 50, format("A token's way through %s: %.2f ms", short_name(name).c_str(), 1e3 * all), 18,
                plot::kInk, 0, true);
    canvas.text(40, 82,
                format("%s, position %d, medians of real steps on %s; from top to bottom, %d layers from left to right",
                       type_of(model).c_str(), position, processor().c_str(), c.num_layers),
                11, plot::kFaint);
    for (const auto& [x, title] : {std::pair<double, const char*>(56, "operation"),
                                   {275, "of what"},
                                   {kCells - 60, "MB"},
                                   {kCells, "each layer: the darker, the longer"},
                                   {kBars, "all layers, microseconds"}})
        canvas.text(x, kTop - 22, title, 11, plot::kFaint);
    canvas.line(34, kTop, 34, kTop + kRow * (double(stops.size()) - 0.4), 2, plot::kFaint);

    for (std::size_t k = 0; k < stops.size(); ++k)
        draw_stop(canvas, kTop + kRow * double(k), stops[k], shape_of(stops[k], c, position), longest_cell, longest,
                  all);
    canvas.save(o.journey);
}

}  // namespace bench
