// What is said about a model: its tables, what bounds it, how close it is to that, and where the rest goes.

#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "machine.h"
#include "measure.h"
#include "output.h"
#include "statistics.h"

namespace bench {

// The models' own names of the parts.
inline std::string part_name(const Measurement& m, int p) {
    if (p == kUp) return m.gpt2 ? "c_fc" : "gate+up";
    if (p == kDown) return m.gpt2 ? "c_proj" : "down";
    return kPartNames[p];
}

// One of a model's phases, decode or prompt, in the terms that tables, sentences and the picture need.
struct Phase {
    const Measurement& m;
    bool is_prompt;
    Profile all{};  // of all rounds
    // Seconds that a part would take if only memory, or only arithmetic, limited it at this machine's measured best.
    double memory[kParts] = {}, arithmetic[kParts] = {}, limits[kParts] = {};

    Phase(const Measurement& measured, bool prompt) : m(measured), is_prompt(prompt) {
        for (const Profile& round : rounds()) all.add(round);
        find_limits();
    }
    Phase(const Measurement& measured, const Together& together)
        : m(measured), is_prompt(false), all(together.profile) {
        find_limits();
    }
    void find_limits() {
        for (const int p : {kEmbedding, kNorm, kQkv, kRope, kAttention, kAttnOut, kUp, kActivation, kDown, kHead}) {
            const bool product = p == kQkv || p == kAttnOut || p == kUp || p == kDown || p == kHead;
            memory[p] = all.parts[p].bytes / m.roof.read;
            arithmetic[p] = all.parts[p].operations / (m.integers && product ? m.roof.int8 : m.roof.f32);
            limits[p] = std::max(memory[p], arithmetic[p]);
            memory[kStep] += memory[p];
            arithmetic[kStep] += arithmetic[p];
            limits[kStep] += limits[p];
        }
    }
    const std::vector<Profile>& rounds() const { return is_prompt ? m.prompt : m.decode; }
    int tokens() const { return is_prompt ? m.profiled_prompt : 1; }
    double step_ms() const { return 1e3 * all.parts[kStep].seconds / all.steps; }
    double reached() const { return limits[kStep] / all.parts[kStep].seconds; }
    bool by_memory() const { return memory[kStep] > arithmetic[kStep]; }
    // The share of the step that a part takes beyond its limit.
    double loss(int p) const { return std::max(0.0, all.parts[p].seconds - limits[p]) / all.parts[kStep].seconds; }
};

inline Table step_table(const Phase& phase) {
    const bool prompt = phase.is_prompt;
    const std::string what = prompt ? format("A prompt of %d tokens", phase.tokens()) : "Generating a token at depth 0";
    Table t{phase.m.name, prompt ? "prompt_step" : "decode_step", "", 1, true, {}};
    t.title =
        what + format(": %.2f ms (solid: what memory or arithmetic take at their measured best)", phase.step_ms());
    t.columns = {{"part", "part"}, {"ms", "ms", 3}, {"percent", "%", 1}};
    const Column by_memory[] = {{"mb", "MB", 2}, {"gb_s", "GB/s", 1}, {"percent_of_read", "% of read"}};
    const Column by_arithmetic[] = {{"gop", "GOP", 2}, {"gop_s", "GOP/s", 1}, {"percent_of_peak", "% of peak"}};
    for (const Column& column : prompt ? by_arithmetic : by_memory) t.columns.push_back(column);
    double longest = 0;
    for (int p = 0; p < kStep; ++p) longest = std::max(longest, phase.all.parts[p].seconds);
    for (int p = 0; p < kParts; ++p) {
        const Profile::Sums& part = phase.all.parts[p];
        const double seconds = part.total(), amount = prompt ? part.operations / 1e9 : part.bytes / 1e6,
                     need = prompt ? phase.arithmetic[p] : phase.memory[p];
        if (!(seconds > 0)) continue;
        Samples rounds;
        for (const Profile& round : phase.rounds()) rounds.push_back(round.parts[p].seconds / round.steps);
        const auto known = [&](double value) { return amount > 0 ? value : NAN; };
        t.rows.push_back({{part_name(phase.m, p), 1e3 * part.seconds / phase.all.steps,
                           100 * part.seconds / phase.all.parts[kStep].seconds, known(amount / phase.all.steps),
                           known(amount / seconds / (prompt ? 1 : 1e3)), known(100 * need / seconds)},
                          spread(rounds),
                          p == kStep ? 0 : part.seconds / longest,
                          std::min(1.0, phase.limits[p] / seconds)});
    }
    return t;
}

// What bounds a phase, how close it is to that, and where the rest goes.
inline std::string verdict(const Phase& phase) {
    const Profile::Sums& step = phase.all.parts[kStep];
    const double steps = phase.all.steps, rate = phase.tokens() * 1e3 / phase.step_ms();
    std::string text = phase.is_prompt ? "Reading a prompt is " : "Generation is ";
    text += format("%sbound by %s: it runs at %.0f %% of the limit, %.1f of at most %.1f tokens/s",
                   phase.reached() < 0.5 ? "not yet " : "", phase.by_memory() ? "memory" : "arithmetic",
                   100 * phase.reached(), rate, rate / phase.reached());
    text += phase.by_memory()
                ? format(" (%.1f MB a step at %.1f GB/s)", step.bytes / steps / 1e6, phase.m.roof.read / 1e9)
                : format(" (%.1f GOP at %.0f GOP/s)", step.operations / steps / 1e9,
                         step.operations / phase.arithmetic[kStep] / 1e9);
    text += ". Left to gain:";
    int order[kStep];
    std::iota(order, order + kStep, 0);
    std::sort(order, order + kStep, [&](int a, int b) { return phase.loss(a) > phase.loss(b); });
    for (int i = 0; i < 4 && phase.loss(order[i]) > 0.002; ++i)
        text += format("%s %s %.1f %%", i ? "," : "", part_name(phase.m, order[i]).c_str(), 100 * phase.loss(order[i]));
    return text + ".";
}

inline std::vector<Table> tables_of(const Machine& machine) {
    const auto& last = machine.measured().back();
    Table facts{"", "machine", "", 0, false, {{"row", ""}, {"value", ""}}};
    facts.rows = {{{"processor", processor()}},
                  {{"threads", format("%d, %s kernels", last.threads, machine.kernels())}},
                  {{"caches", caches()}},
                  {{"memory", format("%.1f GB available", available_memory() / 1e9)}},
                  {{"huge pages", huge_pages()}}};
    Table rates{"", "bandwidth", "", 1, false, {}};
    rates.title = format("Memory (%.1f GB) and arithmetic, with all threads at once", machine.buffer_bytes() / 1e9);
    rates.columns = {{"threads", "threads"},
                     {"read_gb_s", "read GB/s", 1},
                     {"copy_gb_s", "copy GB/s", 1},
                     {"int8_gop_s", "int8 GOP/s"},
                     {"f32_gop_s", "f32 GFLOP/s"}};
    for (const auto& m : machine.measured())
        rates.rows.push_back(
            {{std::to_string(m.threads), m.roof.read / 1e9, m.copy / 1e9, m.roof.int8 / 1e9, m.roof.f32 / 1e9},
             m.read_spread,
             m.roof.read / last.roof.read});
    return {facts, rates};
}

inline std::vector<Table> tables_of(const Measurement& m) {
    Table memory{m.name, "model", m.name + " (" + m.type + ")", 0, false, {}};
    memory.columns = {{"row", ""}, {"value", "", 2}, {"unit", ""}};
    memory.rows = {{{"loading", m.load_s, "s"}},
                   {{"weights", m.weight_bytes / 1e6, "MB, " + m.huge_pages + " of all memory in huge pages"}},
                   {{"KV cache, scratch", m.session_bytes / 1e6,
                     format("MB for %d positions; %.1f MB for all that the model can have", m.context,
                            m.full_context_bytes / 1e6)}},
                   {{"read bandwidth", m.roof.read / 1e9, "GB/s, of as much data as the weights"}},
                   {{"profiling costs", 100 * m.profile_cost, "% of a step"}}};
    Table first{m.name, "first_token", "Time to the first token", 1, true, {}};
    first.columns = {{"tokens", "prompt"}, {"ms", "ms", 1}, {"tokens_s", "tokens/s", 1}};
    Table decode{m.name, "decode", "Generation", 1, false, {}};
    decode.columns = {{"depth", "depth"},      {"tokens_s", "tokens/s", 1}, {"p50_ms", "p50 ms", 2},
                      {"p95_ms", "p95 ms", 2}, {"max_ms", "max ms", 2},     {"jitter", "p95/p50", 2},
                      {"steps", "steps"}};
    double fastest = 0;
    for (const Prompt& p : m.prompts) fastest = std::max(fastest, 1 / median(p.steps));
    for (const Prompt& p : m.prompts) {
        first.rows.push_back(
            {{std::to_string(p.tokens), 1e3 * median(p.seconds), p.tokens / median(p.seconds)}, spread(p.seconds)});
        decode.rows.push_back(
            {{format("%.0f", m.depth_of(p)), 1 / mean(p.steps), 1e3 * median(p.steps), 1e3 * quantile(p.steps, 0.95),
              1e3 * quantile(p.steps, 1), quantile(p.steps, 0.95) / median(p.steps), double(p.steps.size())},
             spread(p.rates),
             1 / median(p.steps) / fastest});
    }
    Table together{m.name, "parallel", "Generation of several texts in the same steps, at depth 0", 1, false, {}};
    together.columns = {{"parallel", "texts"},        {"tokens_s", "tokens/s", 1}, {"times_one", "x one", 2},
                        {"p50_ms", "p50 ms", 2},      {"jitter", "p95/p50", 2},    {"limit_tokens_s", "limit", 1},
                        {"percent_of_limit", "%", 1}, {"bound_by", "bound by"}};
    for (const Together& t : m.together) {
        const Phase phase(m, t);
        const double rate = double(t.steps.size()) * t.n / sum(t.steps),
                     one = m.together[0].n / mean(m.together[0].steps),
                     limit = t.n * phase.all.steps / phase.limits[kStep];
        together.rows.push_back(
            {{std::to_string(t.n), rate, rate / one, 1e3 * median(t.steps), quantile(t.steps, 0.95) / median(t.steps),
              limit, 100 * rate / limit, std::string(phase.by_memory() ? "memory" : "arithmetic")},
             spread(t.rates)});
    }
    const Phase decoding(m, false), prompting(m, true);
    Table limits{m.name, "limits", "", 1, false, {}};
    limits.columns = {{"row", ""}, {"percent_of_limit", "% of limit", 1}, {"bound_by", ""}, {"verdict", ""}};
    for (const Phase* phase : {&decoding, &prompting})
        limits.rows.push_back({{phase->is_prompt ? "prompt" : "decode", 100 * phase->reached(),
                                phase->by_memory() ? "memory" : "arithmetic", verdict(*phase)}});
    return {memory, first, decode, together, step_table(decoding), step_table(prompting), limits};
}

}  // namespace bench
