// What build/bench is asked for.

#pragma once

#include <algorithm>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "../cli/flags.h"
#include "../llm.h"

namespace bench {

using cli::format;

struct Options {
    std::string model, shape;         // a path or a published model's name; none: what is usual
    std::vector<std::string> others;  // more paths, for a report
    std::optional<std::vector<int>> prompts, generate, depths;  // tokens
    std::optional<std::vector<int>> sequences;                  // of a step
    std::optional<int> rounds;                                  // repetitions
    std::optional<std::string> form;
    llm::LoadOptions load;
    std::string png, journey, compare, reference, text;
    bool report = false, quality = false, quiet = false, help = false;

    std::string name() const { return !shape.empty() ? shape : model.empty() ? "models/gemma3-tiny" : model; }
    std::string output() const { return form.value_or(report ? "text" : "md"); }
    std::vector<int> parallel() const {
        return sequences.value_or(report ? std::vector<int>{1, 2, 4, 8, 16, 32} : std::vector<int>{1});
    }
    int repetitions() const { return rounds.value_or(report ? 3 : 5); }
};

inline cli::Setter numbers(std::optional<std::vector<int>>& target) {
    return [&target](const std::string& text) {
        constexpr int kMost = 1 << 28;
        std::istringstream in(text);
        std::vector<int> values;
        char comma = ',';
        for (int value = 0; comma == ',' && in >> std::noskipws >> value && value >= 0 && value <= kMost;) {
            values.push_back(value);
            if (!(in >> comma)) return void(target = values);
        }
        throw llm::Error("'" + text + "' is not a list of whole numbers from 0 to " + std::to_string(kMost));
    };
}

inline std::vector<cli::Flag> make_flags(Options& o) {
    const cli::Setter form = [&o](const std::string& value) {
        std::string& chosen = o.form.emplace();
        cli::choice<std::string>(chosen, {{"md", "md"}, {"json", "json"}, {"csv", "csv"}, {"text", "text"}})(value);
    };
    return {
        {"-m", "", "PATH", "model (models/gemma3-tiny; with --report the shapes below, or several -m)",
         [&o](const std::string& path) { o.model.empty() ? void(o.model = path) : o.others.push_back(path); }},
        {"", "--shape", "NAME",
         "a published model's exact shape with random weights instead: gpt2-124m, gpt2-medium,\n"
         "gpt2-large, gpt2-xl, gemma3-270m, gemma3-1b or gemma3-4b",
         cli::text(o.shape)},
        {"-p", "", "N,...", "prompt lengths, 0: no such test (512, at most the model's context)", numbers(o.prompts)},
        {"-n", "", "N,...", "tokens to generate, 0: no such test (128, at most the model's context)",
         numbers(o.generate)},
        {"-d", "", "N,...", "tokens there before: all tests are done at each depth (0)", numbers(o.depths)},
        {"", "--parallel", "N,...",
         "sequences that go through one step together, 1 to 256 (1; with --report 1,2,4,8,16,32)",
         numbers(o.sequences)},
        {"-t", "", "N", "threads, 0: one for each physical core (0)", cli::number(o.load.threads, 0, 1024)},
        {"-r", "", "N", "repetitions of each test (5; with --report 3)", cli::number(o.rounds, 1, 1 << 28)},
        {"-o", "", "FORMAT", "md, json or csv (md; with --report text for a terminal)", form},
        {"", "--dtype", "TYPE", "native, q8_0, q4_0 or f32 (native: as the file has it)", cli::dtype(o.load.dtype)},
        {"", "--report", "",
         "the status page: machine, prompts of -p tokens (1,128,512,2048), generation after each, where the\n"
         "time of a step goes, and what is left to gain; without -m and --shape for gpt2-124m, gemma3-270m\n"
         "and gemma3-1b, as far as memory allows",
         cli::turn(o.report, true)},
        {"", "--png", "FILE", "the report as a picture", cli::text(o.png)},
        {"", "--journey", "FILE", "a picture of a token's way through a model: each operation's shape, bytes and time",
         cli::text(o.journey)},
        {"", "--quality", "",
         "how near the model is to its file in F32 over the text of -f: perplexity, divergence, likeliest token",
         cli::turn(o.quality, true)},
        {"", "--reference", "PATH", "with --quality: another model's F32 instead", cli::text(o.reference)},
        {"-f", "", "FILE", "with --quality: the text", cli::text(o.text)},
        {"", "--compare", "FILE", "the ratio to an earlier run's -o json, marked where it is beyond the spread of both",
         cli::text(o.compare)},
        {"-q", "", "", "no progress on the terminal", cli::turn(o.quiet, true)},
        {"-h", "--help", "", "", cli::turn(o.help, true)},
    };
}

inline std::string usage(const std::vector<cli::Flag>& flags) {
    std::string text = "usage: bench [options]\n";
    for (const cli::Flag& f : flags) {
        if (f.help.empty()) continue;
        text += format("  %-14s ", (f.short_name + f.long_name + " " + f.argument).c_str());
        for (const char c : f.help + "\n") text += c == '\n' ? "\n" + std::string(17, ' ') : std::string(1, c);
        text.resize(text.size() - 17);
    }
    return text;
}

// What each flag alone cannot know.
inline void check(const Options& o) {
    if (o.form == "text" && !o.report) throw llm::Error("-o: text is how a report looks: add --report");
    if (!o.png.empty() && !o.report) throw llm::Error("--png: draws a report: add --report");
    if (!o.others.empty() && !o.report) throw llm::Error("-m: several models are for a report: add --report");
    if (!o.journey.empty() && (o.report || o.quality)) throw llm::Error("--journey: is a picture of its own");
    const bool tests_only = o.generate || o.depths, tests_or_report = o.prompts || o.sequences;
    if (tests_only && (o.report || o.quality || !o.journey.empty()))
        throw llm::Error("-n, -d: are for tests: leave them out, or --report, --quality, --journey");
    if (tests_or_report && (o.quality || !o.journey.empty()))
        throw llm::Error("-p, --parallel: are for tests and --report: leave them out, or --quality, --journey");
    if (!o.model.empty() && !o.shape.empty()) throw llm::Error("--shape: a model is named as well: choose one");
    if (o.quality == o.text.empty()) throw llm::Error("--quality: takes a text: add both, --quality and -f");
    if (o.quality && (o.report || !o.shape.empty())) throw llm::Error("--quality: is of a model's file, and no report");
    if (!o.reference.empty() && !o.quality) throw llm::Error("--reference: add --quality");
    if (o.report && o.prompts && *std::min_element(o.prompts->begin(), o.prompts->end()) < 1)
        throw llm::Error("-p: a report's prompts have one token or more: leave out 0");
    for (const int n : o.parallel())
        if (n < 1 || n > 256) throw llm::Error(format("--parallel: '%d' is not a number from 1 to 256", n));
}

}  // namespace bench
