// build/llm --profile: where a text's time goes, in tables. Session::on_timing reports every operation of every step, the
// step itself last. Steps of one token (generation) and of several (prompts) are kept apart, as different things bound
// them: memory those, arithmetic these.

#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../llm.h"
#include "flags.h"

namespace cli {

struct ProfileOptions {
    std::string kind;  // step: a line for each step; layer: for each layer; trace: for each operation of one layer
    int layer = 0;     // of the trace
};

class Profile {
  public:
    explicit Profile(const ProfileOptions& options) : options_(options) {}

    void add(const llm::Timing& t) {
        if (t.part != std::string_view("step")) {
            step_.push_back(t);
            return;
        }
        Phase& phase = phases_[t.tokens > 1];
        double seconds = t.seconds;
        for (const llm::Timing& one : step_) {
            merge(phase.sums, one);
            if (one.part == std::string_view("sampling")) seconds += one.seconds;  // generate's, so not the step's
        }
        phase.seconds.push_back(seconds);
        if (options_.kind == "step")
            lines_ += format("%4zu %6d", phases_[0].seconds.size() + phases_[1].seconds.size(), t.tokens) +
                      shares(seconds, 1, step_);
        step_.clear();
    }

    std::string text() const {
        std::string text = options_.kind == "step" ? heading("step tokens") + lines_ : "";
        for (const Phase& phase : phases_) {
            if (phase.seconds.empty()) continue;
            std::vector<double> sorted = phase.seconds;
            std::sort(sorted.begin(), sorted.end());
            const auto quantile = [&](double q) {
                return 1e3 * sorted[static_cast<std::size_t>(q * double(sorted.size() - 1) + 0.5)];
            };
            text +=
                format("%s%zu step%s of %s: p50 %.3f ms, p95 %.3f, max %.3f\n", text.empty() ? "" : "\n", sorted.size(),
                       sorted.size() > 1 ? "s" : "", &phase == phases_ ? "one token" : "several tokens", quantile(0.5),
                       quantile(0.95), quantile(1));
            if (options_.kind == "layer") text += layers(phase);
            if (options_.kind == "trace") text += trace(phase);
        }
        return text;
    }
  private:
    using Timings = std::vector<llm::Timing>;
    struct Phase {  // steps of one token, or of several
        std::vector<double> seconds{};
        Timings sums{};  // of each layer and operation
    };
    // Operations, and what heads their column.
    static constexpr std::pair<const char*, const char*> kParts[] = {
        {"embedding", "embed"}, {"norm", "norm"},    {"qkv", "qkv"},      {"rope", "rope"},
        {"attention", "attn"},  {"attn_out", "out"}, {"up", "up"},        {"activation", "act"},
        {"down", "down"},       {"lm_head", "head"}, {"sampling", "pick"}};

    // Adds to what is known of the same operation: as they come in one order, mostly the next one.
    void merge(Timings& sums, const llm::Timing& t) {
        for (std::size_t i = 0; i < sums.size(); ++i) {
            llm::Timing& sum = sums[next_ < sums.size() ? next_ : next_ = 0];
            ++next_;
            if (sum.layer != t.layer || sum.operation != std::string_view(t.operation)) continue;
            sum.seconds += t.seconds, sum.waited += t.waited;
            sum.bytes += t.bytes, sum.operations += t.operations;
            return;
        }
        sums.push_back(t);
    }
    static std::string heading(const char* first) {
        std::string text = format("%-11s       ms   GB/s", first);
        for (const auto& part : kParts) text += format(" %5s", part.second);
        return text + "  wait (% of the time)\n";
    }
    // Milliseconds, GB/s, and the shares of the parts without what was waited for other threads, and of that.
    static std::string shares(double seconds, double steps, const Timings& timings) {
        double bytes = 0, waited = 0, parts[std::size(kParts)] = {};
        for (const llm::Timing& t : timings) {
            bytes += double(t.bytes), waited += t.waited;
            for (std::size_t p = 0; p < std::size(kParts); ++p)
                if (t.part == std::string_view(kParts[p].first)) parts[p] += t.seconds - t.waited;
        }
        std::string text = format(" %8.3f %6.1f", 1e3 * seconds / steps, bytes / seconds / 1e9);
        for (const double part : parts) text += part > 0 ? format(" %5.1f", 100 * part / seconds) : "     -";
        return text + format(" %5.1f\n", 100 * waited / seconds);
    }
    static std::string layers(const Phase& phase) {
        std::map<int, Timings> of_layer;
        for (const llm::Timing& t : phase.sums) of_layer[t.layer].push_back(t);
        std::string text = heading("layer");
        for (const auto& [layer, timings] : of_layer) {
            double seconds = 0;
            for (const llm::Timing& t : timings) seconds += t.seconds;
            text += format("%-11s", layer < 0 ? "outside" : std::to_string(layer).c_str()) +
                    shares(seconds, double(phase.seconds.size()), timings);
        }
        return text;
    }
    std::string trace(const Phase& phase) const {
        const double steps = double(phase.seconds.size());
        double all = 0;
        for (const llm::Timing& t : phase.sums) all += t.layer == options_.layer ? t.seconds : 0;
        std::string text = format("  layer %-3d                       us      %%       MB   GB/s    MFLOP   GFLOP/s\n",
                                  options_.layer);
        for (const llm::Timing& t : phase.sums) {
            if (t.layer != options_.layer) continue;
            const auto rate = [&](std::uint64_t amount) { return double(amount) / t.seconds / 1e9; };
            text += format("  %-10s %-14s %8.2f  %5.1f", t.part, t.operation, 1e6 * t.seconds / steps,
                           100 * t.seconds / all);
            if (t.bytes) text += format("  %7.3f %6.1f", double(t.bytes) / steps / 1e6, rate(t.bytes));
            if (t.operations) text += format("  %7.2f %9.1f", double(t.operations) / steps / 1e6, rate(t.operations));
            text += "\n";
        }
        return text + format("  %-25s %8.2f  100.0\n", "all", 1e6 * all / steps);
    }

    ProfileOptions options_;
    Timings step_;  // the operations of the step that runs
    Phase phases_[2];
    std::string lines_;     // a line for each step
    std::size_t next_ = 0;  // in Phase::sums, where the next operation is expected
};

}  // namespace cli
