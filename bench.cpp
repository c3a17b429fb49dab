// build/bench: measures and plots. Without --report it is a small llama-bench: how fast a model reads a prompt (pp) and
// generates (tg), with that program's options, test names and field names, so that one script can read both. With
// --report it draws the status page: what this machine can do, what a model makes of it, and what is left. bench/ holds
// what both need, and the report.

#include "bench/probes.h"
#define LLM_KERNEL_PROBE "bench/probe.h"  // before llm.h, which reads it once for each set of kernels
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "bench/compare.h"
#include "bench/journey.h"
#include "bench/models.h"
#include "bench/options.h"
#include "bench/output.h"
#include "bench/quality.h"
#include "bench/report.h"
#include "bench/statistics.h"

namespace {

using namespace bench;

struct Test {
    int prompt, generate, depth, parallel;
    std::string name() const { return test_name(prompt, generate, depth, parallel); }
    int tokens() const { return (prompt + generate) * parallel; }
};

// As generate() does it: how much of the head may be among the best depends on the text, so it is a sampled one.
void generate(llm::Session& session, int count, int id) {
    const int best = std::min(llm::Sampling().top_k, session.model().config().vocab_size);
    llm::Sampler sampler;
    for (; count > 0; --count) id = sampler.sample(session.forward_best(&id, 1, best));
}

// Brings the sessions to the test's depth, then appends its tokens: a prompt at once, generated ones one by one. Returns
// nanoseconds.
double measure(std::vector<llm::Session>& sessions, const Test& test, const std::vector<int>& tokens) {
    std::vector<llm::Session*> together;
    for (int i = 0; i < test.parallel; ++i) together.push_back(&sessions[llm::detail::usize(i)]);
    const auto append = [&](int begin, int n) {
        forward_together(together, {together.size(), {tokens.begin() + begin, tokens.begin() + begin + n}});
    };
    for (llm::Session* s : together) s->rewind(std::min(s->position(), test.depth));
    for (llm::Session* s : together)
        if (s->position() < test.depth) s->forward(tokens.data(), test.depth - s->position());
    const auto start = Clock::now();
    if (test.prompt > 0) append(0, test.prompt);
    if (test.parallel > 1)
        for (int i = 0; i < test.generate; ++i) append(i, 1);
    else generate(sessions[0], test.generate, tokens[0]);
    return 1e9 * seconds_since(start);
}

// llama-bench's fields, or a line of a table.
void print_test(Output& out, const llm::Session& session, const std::string& name, const Test& test, const Samples& ns,
                bool first) {
    const llm::ModelInfo& info = session.model().info();
    Samples ts;
    for (const double t : ns) ts.push_back(test.tokens() / t * 1e9);
    if (out.prose()) {
        if (first) out.line("| model | MB | threads | test | tokens/s |\n| --- | ---: | ---: | ---: | ---: |");
        out.line(format("| %s | %.2f | %d | %s | %.2f ± %.2f |", type_of(session.model()).c_str(),
                        double(info.weight_bytes) / 1e6, session.threads(), test.name().c_str(), mean(ts),
                        deviation(ts)));
        return;
    }
    Output::Fields f(out.json());
    char time[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    f.add_text("cpu_info", processor());
    f.add_text("model_filename", name);
    f.add_text("model_type", type_of(session.model()));
    f.add("model_size", info.weight_bytes);
    f.add("model_n_params", info.parameters);
    f.add("n_threads", session.threads());
    f.add("n_prompt", test.prompt);
    f.add("n_gen", test.generate);
    f.add("n_depth", test.depth);
    f.add("n_parallel", test.parallel);
    f.add_text("test_time", time);
    for (const auto& [unit, x] : {std::pair<std::string, Samples>("ns", ns), {"ts", ts}}) {
        std::string samples;
        for (const double v : x) samples += (samples.empty() ? "" : ", ") + std::to_string(v);
        f.add("avg_" + unit, mean(x));
        f.add("stddev_" + unit, deviation(x));
        f.add("samples_" + unit, (out.json() ? '[' : '"') + samples + (out.json() ? ']' : '"'));
    }
    out.object(f);
}

void run_tests(const Options& o) {
    const std::string name = o.name();
    const Earlier earlier(o.compare);
    const llm::Model model = make_model(name, !o.shape.empty(), o.load);

    std::vector<Test> tests;
    int longest = 1;
    for (const int together : o.parallel())
        for (const int depth : o.depths.value_or(std::vector<int>{0})) {
            const int room = std::max(1, model.config().context_length - depth);
            for (const int n : o.prompts.value_or(std::vector<int>{std::min(512, room)}))
                tests.push_back({n, 0, depth, together});
            for (const int n : o.generate.value_or(std::vector<int>{std::min(128, room)}))
                tests.push_back({0, n, depth, together});
        }
    for (const Test& t : tests) longest = std::max(longest, t.depth + t.prompt + t.generate);
    const std::vector<int> tokens = random_tokens(model, longest);

    std::vector<llm::Session> sessions;
    sessions.emplace_back(model, longest, o.load.threads);
    Output out(o.output());
    Table results{name, "test", "", 1, false, {{"row", "test"}, {"avg_ts", "tokens/s", 2}}};
    for (const Test& test : tests) {
        if (test.tokens() == 0) continue;
        while (int(sessions.size()) < test.parallel) sessions.push_back(sessions[0].fork());
        Samples ns, ts;
        const Progress progress(o.quiet);
        // To warm up, as llama-bench does.
        measure(sessions, {test.prompt, std::min(test.generate, 1), test.depth, test.parallel}, tokens);
        for (int i = 1; i <= o.repetitions(); ++i) {
            progress(format("%s: %d of %d", test.name().c_str(), i, o.repetitions()));
            ns.push_back(measure(sessions, test, tokens));
            ts.push_back(test.tokens() / ns.back() * 1e9);
        }
        progress("");
        print_test(out, sessions[0], name, test, ns, results.rows.empty());
        results.rows.push_back({{test.name(), mean(ts)}, deviation(ts) / mean(ts)});
    }
    if (!earlier.empty()) out.table(earlier.compare({results}));
    out.end();
}

}  // namespace

int main(int argc, char** argv) {
    try {
        Options o;
        const std::vector<cli::Flag> flags = make_flags(o);
        cli::parse(cli::arguments(argc, argv), flags, "-h");
        check(o);
        if (o.help) std::cout << usage(flags);
        else if (o.quality) quality(o);
        else if (o.report) report(o);
        else if (!o.journey.empty()) draw_journey(o);
        else run_tests(o);
        if (!std::cout.flush()) throw llm::Error("cannot write to standard output");
        return 0;
    } catch (const std::exception& e) {
        std::cerr << "bench: " << e.what() << "\n";
        return 1;
    }
}
