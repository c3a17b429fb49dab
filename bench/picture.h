// The report as a picture of four panels.

#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "machine.h"
#include "measure.h"
#include "plot.h"
#include "statistics.h"
#include "verdict.h"

namespace bench {

constexpr int kWidth = 1600, kHeight = 1000;
constexpr plot::Color kPartColors[kStep] = {
    plot::rgb(0x9a8c7c), plot::rgb(0xb79ad1), plot::rgb(0x3d6fb4), plot::rgb(0x8fc1e3), plot::rgb(0xd1495b),
    plot::rgb(0x4f9d7a), plot::rgb(0xe9a63a), plot::rgb(0xf2d38b), plot::rgb(0xbf6f2a), plot::rgb(0x2f4858),
    plot::rgb(0x8d5a97), plot::rgb(0xbab5aa), plot::rgb(0xd9d5cb)};
inline std::string short_name(const std::string& name) {
    const std::string last = name.substr(name.find_last_of('/') + 1);
    return last.substr(0, last.rfind(".gguf"));
}

constexpr plot::Color kModelColors[] = {plot::rgb(0x3d6fb4), plot::rgb(0xd1495b), plot::rgb(0x4f9d7a),
                                        plot::rgb(0xe9a63a), plot::rgb(0x8d5a97), plot::rgb(0x2f4858)};

// Labels in a column, none above another, each with a thread to its point.
struct Labels {
    struct Label {
        double x, y, at;
        std::string text;
        plot::Color color;
    };
    std::vector<Label> all{};
    void draw(plot::Canvas& c, double column, double lowest) {
        constexpr double kPitch = 19;
        std::sort(all.begin(), all.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
        for (std::size_t i = 0; i < all.size(); ++i) all[i].at = std::max(all[i].y, i ? all[i - 1].at + kPitch : 0);
        for (std::size_t i = all.size(); i-- > 0;)
            all[i].at = std::min(all[i].at, i + 1 < all.size() ? all[i + 1].at - kPitch : lowest);
        for (const Label& l : all) {
            c.line(l.x, l.y, column, l.at, 1, l.color, 0.6);
            c.rect(column + 3, l.at - 9, column + 9 + plot::Canvas::text_width(l.text, 11), l.at + 9, plot::kPanel,
                   0.9);
            c.text(column + 6, l.at + 5, l.text, 11, plot::kInk);
        }
    }
};

// Below the slopes memory is the limit, below the levels arithmetic.
inline void draw_roofs(plot::Canvas& c, const plot::Axis& x, const plot::Axis& y, const Roof& roof,
                       const std::vector<Measurement>& models) {
    const auto slope = [&](double bandwidth, bool dashed) {
        const double from = std::max(x.low, y.low * 1e9 / bandwidth), to = std::min(x.high, roof.int8 / bandwidth);
        const auto at = [&](double intensity) { return y(intensity * bandwidth / 1e9); };
        if (dashed) c.dashes(x(from), at(from), x(to), at(to), 1.5, plot::kFaint);
        else c.line(x(from), at(from), x(to), at(to), 3, plot::kInk);
    };
    const auto level = [&](double peak, double below, const std::string& name) {
        c.line(x(peak / roof.read), y(peak / 1e9), x(x.high), y(peak / 1e9), 3, plot::kInk);
        c.text(x(peak / roof.read) + 48, y(peak / 1e9) + below, name, 11, plot::kInk);
    };
    for (const Measurement& m : models) slope(m.roof.read, true);
    slope(roof.read, false);
    c.text(x.from + 14, y.to + 24, format("memory %.1f GB/s", roof.read / 1e9), 11, plot::kInk);
    const auto note = [&](double above, const std::string& text) {
        c.text(x.to - 10, y.from - above, text, 10, plot::kFaint, 1);
    };
    note(50, "discs: decode, squares: prompt; larger: more of the time");
    if (models.size() > 1) note(31, "named: " + short_name(models.back().name) + ", pale: the others");
    note(12, "dashed: reading as much data as a model has");
    level(roof.int8, -9, format("int8 %.0f GOP/s", roof.int8 / 1e9));
    level(roof.f32, 20, format("f32 %.0f GFLOP/s", roof.f32 / 1e9));
}

inline void draw_roofline(plot::Canvas& c, const Machine& machine, const std::vector<Measurement>& models) {
    const Roof roof = machine.measured().back().roof;
    double lowest = roof.f32 / 1e9;
    std::vector<Phase> phases;
    for (const Measurement& m : models)
        for (const bool prompt : {false, true}) phases.emplace_back(m, prompt);
    const auto rate = [](const Profile::Sums& p) { return p.operations / p.total() / 1e9; };
    const auto shown = [](const Profile::Sums& p) { return p.operations > 0 && p.bytes > 0; };
    for (const Phase& phase : phases)
        for (const Profile::Sums& p : phase.all.parts)
            if (shown(p)) lowest = std::min(lowest, rate(p));
    const plot::Axis x{0.1, 4000, 96, 880, true},
        y{std::pow(10, std::floor(std::log10(lowest))), std::max(roof.int8, roof.f32) / 1e9 * 3, 560, 130, true};
    plot::axes(c, "Roofline: each part of a step, decode and prompt", x, y, "operations per byte read", "GOP/s");
    draw_roofs(c, x, y, roof, models);

    for (const Phase& phase : phases) {
        const bool named = &phase.m == &models.back();
        Labels labels;
        for (int p = 0; p < kStep; ++p) {
            const Profile::Sums& part = phase.all.parts[p];
            if (!shown(part)) continue;
            const double px = x(part.operations / part.bytes), py = y(rate(part));
            const double r = 4 + 14 * std::sqrt(part.seconds / phase.all.parts[kStep].seconds);
            const auto shape = phase.is_prompt ? &plot::Canvas::square : &plot::Canvas::disc;
            (c.*shape)(px, py, r + 1.5, plot::kPanel, named ? 1.0 : 0.6);
            (c.*shape)(px, py, r, kPartColors[p], named ? 1.0 : 0.45);
            if (named) labels.all.push_back({px, py, 0, part_name(phase.m, p), kPartColors[p]});
        }
        if (phase.is_prompt) labels.draw(c, x.to - 104, y.from - 12);
        else labels.draw(c, x(9), y.from - 80);
    }
}

// Each model's step and prompt as a bar of its parts, above what they take at the machine's limits.
inline void draw_steps(plot::Canvas& c, const std::vector<Measurement>& models) {
    const double left = 1080, right = 1470, top = 130, bottom = 560;
    c.text(left, top - 16, "Where the time goes; below, the limit", 15, plot::kInk, 0, true);
    const double pitch = std::min(110.0, (bottom - top) / double(2 * models.size())),
                 height = std::min(30.0, pitch * 0.42);
    double y = top + 6;
    for (const Measurement& m : models)
        for (const bool prompt : {false, true}) {
            const Phase phase(m, prompt);
            double at = left, end = left;
            const double scale = (right - left) / phase.all.parts[kStep].seconds;
            for (int p = 0; p < kStep; ++p) {
                const double width = std::max(0.0, phase.all.parts[p].seconds) * scale;
                c.rect(at, y, at + width, y + height, kPartColors[p]);
                const std::string name = part_name(m, p);
                if (plot::Canvas::text_width(name, 9) + 8 < width)
                    c.text(at + width / 2, y + height / 2 + 4.5, name, 9, plot::kPanel, 0.5);
                at += width;
                c.rect(end, y + height + 2, end + phase.limits[p] * scale, y + height * 1.45, kPartColors[p], 0.75);
                end += phase.limits[p] * scale;
            }
            c.text(right + 10, y + height, format("%.0f %% of limit", 100 * phase.reached()), 10, plot::kInk);
            const std::string what = prompt ? format("%d tokens, %.0f ms", phase.tokens(), phase.step_ms())
                                            : format("step, %.2f ms", phase.step_ms());
            const bool narrow = pitch < 44;  // one line for both
            if (!narrow || !prompt)
                c.text(left - 10, y + (narrow ? 2 : 12), short_name(m.name), narrow ? 9 : 11, plot::kInk, 1);
            c.text(left - 10, y + (!narrow ? 30 : prompt ? 12 : 17), what, narrow ? 9 : 10, plot::kFaint, 1);
            y += pitch;
        }
}

inline void draw_depths(plot::Canvas& c, const std::vector<Measurement>& models) {
    double deepest = 1, fastest = 0;
    for (const Measurement& m : models)
        for (const Prompt& p : m.prompts) {
            deepest = std::max(deepest, double(p.tokens));
            fastest = std::max(fastest, 1 / median(p.steps));
        }
    const plot::Axis x{0, deepest * 1.04, 96, 740}, y{0, fastest * 1.12, 925, 690};
    plot::axes(c, "Generation against depth", x, y, "tokens before", "tokens/s");
    Labels names;
    for (std::size_t i = 0; i < models.size(); ++i) {
        const plot::Color color = kModelColors[i % std::size(kModelColors)];
        double last_x = 0, last_y = 0;
        for (const Prompt& p : models[i].prompts) {
            const double px = x(models[i].depth_of(p)), py = y(1 / median(p.steps));
            if (&p != &models[i].prompts[0]) c.line(last_x, last_y, px, py, 3, color);
            c.line(px, y(1 / quantile(p.steps, 0.95)), px, std::max(y.to, y(1 / quantile(p.steps, 0.05))), 1.5, color,
                   0.7);
            c.disc(px, py, 5, color);
            last_x = px, last_y = py;
        }
        names.all.push_back({last_x, last_y, 0, short_name(models[i].name), color});
    }
    names.draw(c, x.to + 14, y.from - 5);
}

// Each model's tokens/s against what a step of it reads: one text as a disc, many together as a square.
inline void draw_bytes(plot::Canvas& c, const Machine& machine, const std::vector<Measurement>& models) {
    struct Point {
        double mb, rate;
    };
    const auto point = [](const Phase& phase, int texts, const Samples& steps) {
        return Point{phase.all.parts[kStep].bytes / phase.all.steps / 1e6, texts / mean(steps)};
    };
    std::vector<Point> one, many;
    Point low{1e9, 1e9}, high{0, 0};
    const auto add = [&](std::vector<Point>& points, const Point& p) {
        points.push_back(p);
        low = {std::min(low.mb, p.mb), std::min(low.rate, p.rate)};
        high = {std::max(high.mb, p.mb), std::max(high.rate, p.rate)};
    };
    for (const Measurement& m : models) {
        add(one, point(Phase(m, false), 1, m.prompts[0].steps));
        const Together& most = m.together.back();
        add(many, point(Phase(m, most), most.n, most.steps));
    }

    const plot::Axis x{low.mb / 1.7, high.mb * 1.7, 1045, 1375, true},
        y{low.rate / 1.7, high.rate * 1.7, 925, 690, true};
    plot::axes(c, "Tokens/s against what a step reads", x, y, "MB a step", "tokens/s");
    const double mb = machine.measured().back().roof.read / 1e6;  // a second
    const double from = std::max(x.low, mb / y.high), to = std::min(x.high, mb / y.low);
    if (from < to) c.line(x(from), y(mb / from), x(to), y(mb / to), 3, plot::kInk);
    c.text(x.to - 8, y.to + 18, format("line: memory; squares: %d texts", models[0].together.back().n), 10,
           plot::kFaint, 1);
    Labels names;
    for (std::size_t i = 0; i < models.size(); ++i) {
        const plot::Color color = kModelColors[i % std::size(kModelColors)];
        c.dashes(x(one[i].mb), y(one[i].rate), x(many[i].mb), y(many[i].rate), 1.5, color);
        c.disc(x(one[i].mb), y(one[i].rate), 6, color);
        c.square(x(many[i].mb), y(many[i].rate), 6, color);
        names.all.push_back({x(one[i].mb), y(one[i].rate), 0, short_name(models[i].name), color});
    }
    names.draw(c, x.to + 10, y.from - 5);
}

// What the picture shows in a line.
inline std::string headline(const std::vector<Measurement>& models) {
    std::string text = "llm.h";
    for (const bool prompt : {false, true}) {
        double low = 1, high = 0;
        int memory = 0;
        for (const Measurement& m : models) {
            const Phase phase(m, prompt);
            low = std::min(low, phase.reached()), high = std::max(high, phase.reached());
            memory += phase.by_memory();
        }
        text += format(prompt ? ", reads prompts at %.0f" : ": generates at %.0f", 100 * low) +
                (std::lround(100 * low) < std::lround(100 * high) ? format("-%.0f", 100 * high) : "") +
                format(" %% of the %s limit", 2 * memory > int(models.size()) ? "memory" : "arithmetic");
    }
    return text;
}

inline void draw(const Machine& machine, const std::vector<Measurement>& models, const std::string& path) {
    plot::Canvas c(kWidth, kHeight, plot::rgb(0xf7f4ec));
    c.text(40, 50, headline(models), 18, plot::kInk, 0, true);
    c.text(40, 82,
           format("%s, %d threads, %s kernels, %s", processor().c_str(), machine.measured().back().threads,
                  machine.kernels(), caches().c_str()),
           11, plot::kFaint);
    double at = 960;
    for (int p = 0; p < kStep; ++p) {
        const std::string name = p == kUp ? "gate+up, c_fc" : p == kDown ? "down, c_proj" : kPartNames[p];
        if (p == kAttnOut || p == kDown) at = 960;
        const double y = 588 + 22 * (p >= kDown ? 2 : p >= kAttnOut ? 1 : 0);
        c.rect(at, y - 11, at + 12, y + 1, kPartColors[p]);
        c.text(at + 18, y, name, 10, plot::kInk);
        at += plot::Canvas::text_width(name, 10) + 42;
    }
    draw_roofline(c, machine, models);
    draw_steps(c, models);
    draw_depths(c, models);
    draw_bytes(c, machine, models);
    c.save(path);
}

}  // namespace bench
