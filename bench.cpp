// build/bench: how fast a model reads a prompt (pp) and generates (tg). Options, tests and field names are those of
// llama.cpp's llama-bench, so that one script can read both.

#define LLM_IMPLEMENTATION
#include "llm.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <random>
#include <sstream>

namespace {

constexpr const char* kUsage =
    "usage: bench [options]\n"
    "  -m PATH       model (models/gemma3-tiny)\n"
    "  -p N,...      prompt lengths, 0: no such test (512, at most the model's context)\n"
    "  -n N,...      tokens to generate, 0: no such test (128)\n"
    "  -d N,...      tokens there before: all tests are done at each depth (0)\n"
    "  -t N          threads, 0: one for each physical core (0)\n"
    "  -r N          repetitions of each test (5)\n"
    "  -o FORMAT     md, json or csv (md)\n"
    "  --dtype TYPE  q8_0 or f32 (q8_0)\n"
    "  -q            no progress on the terminal\n";

using Options = std::map<std::string, std::string>;

Options parse(const std::vector<std::string>& args) {
    Options o = {{"-m", "models/gemma3-tiny"},
                 {"-p", ""},
                 {"-n", "128"},
                 {"-d", "0"},
                 {"-t", "0"},
                 {"-r", "5"},
                 {"-o", "md"},
                 {"-q", "no"},
                 {"--dtype", "q8_0"},
                 {"-h", "no"}};
    for (std::size_t i = 0; i < args.size(); ++i) {
        const auto option = o.find(args[i]);
        if (option == o.end()) throw llm::Error(args[i] + ": unknown option: try -h");
        const bool is_switch = args[i] == "-q" || args[i] == "-h";
        if (!is_switch && ++i == args.size()) throw llm::Error(option->first + ": its value is missing: try -h");
        option->second = is_switch ? "yes" : args[i];
    }
    if (o["-o"] != "md" && o["-o"] != "json" && o["-o"] != "csv") throw llm::Error("-o: " + o["-o"] + ": try -h");
    if (o["--dtype"] != "q8_0" && o["--dtype"] != "f32") throw llm::Error("--dtype: " + o["--dtype"] + ": try -h");
    return o;
}

std::vector<int> numbers(const Options& o, const std::string& option, int lowest) {
    std::istringstream in(o.at(option));
    std::vector<int> values;
    char comma = ',';
    for (int value = 0; comma == ',' && in >> std::noskipws >> value && value >= lowest && value <= 1 << 28;) {
        values.push_back(value);
        if (!(in >> comma)) return values;
    }
    throw llm::Error(option + ": '" + o.at(option) + "' is not a list of whole numbers from " + std::to_string(lowest));
}

struct Test {
    int prompt, generate, depth;
    std::string name() const {
        return (prompt > 0 ? "pp" : "tg") + std::to_string(prompt + generate) +
               (depth > 0 ? " @ d" + std::to_string(depth) : "");
    }
};

// Brings the session to the test's depth, then appends its tokens: a prompt at once, generated ones one by one. The
// work does not depend on what the tokens are, so none are sampled. Returns nanoseconds.
double measure(llm::Session& session, const Test& test, const std::vector<int>& tokens) {
    session.rewind(std::min(session.position(), test.depth));
    if (session.position() < test.depth) session.forward(tokens.data(), test.depth - session.position());
    const auto start = std::chrono::steady_clock::now();
    if (test.prompt > 0) session.forward(tokens.data(), test.prompt);
    for (int i = 0; i < test.generate; ++i) session.forward(tokens.data() + i, 1);
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

double mean(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / double(x.size()); }

double deviation(const std::vector<double>& x) {
    double squares = 0;
    for (const double v : x) squares += (v - mean(x)) * (v - mean(x));
    return x.size() > 1 ? std::sqrt(squares / double(x.size() - 1)) : 0;
}

std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.rfind("model name\t: ", 0) == 0) return line.substr(13);
    return "unknown";
}

// Prints one result: an object of a JSON array, or a line of CSV or of a table; the first after what stands above it.
void report(const Options& o, const llm::Session& session, const Test& test, const std::vector<double>& ns,
            bool first) {
    const llm::ModelInfo& info = session.model().info();
    const bool gpt2 = session.model().config().architecture == llm::Config::Architecture::gpt2;
    const bool json = o.at("-o") == "json";
    const std::string type =
        (gpt2 ? "gpt2 " : "gemma3 ") + std::to_string((info.parameters + 500000) / 1000000) + "M " + o.at("--dtype");
    std::vector<double> ts;
    for (const double t : ns) ts.push_back((test.prompt + test.generate) / t * 1e9);
    if (o.at("-o") == "md") {
        if (first) std::cout << "| model | MB | threads | test | tokens/s |\n| --- | ---: | ---: | ---: | ---: |\n";
        std::cout << std::fixed << std::setprecision(2) << "| " << type << " | " << double(info.weight_bytes) / 1e6
                  << " | " << session.threads() << " | " << test.name() << " | " << mean(ts) << " ± " << deviation(ts)
                  << " |" << std::endl;
        return;
    }
    std::ostringstream names, values;
    values << std::fixed;
    auto add = [&, comma = ""](const std::string& name, const auto& value) mutable {
        names << comma << name;
        values << comma << (json ? "\n    \"" + name + "\": " : "") << value;
        comma = ",";
    };
    const auto quoted = [json](const std::string& text) { return std::quoted(text, '"', json ? '\\' : '"'); };
    char time[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    add("cpu_info", quoted(processor()));
    add("model_filename", quoted(o.at("-m")));
    add("model_type", quoted(type));
    add("model_size", info.weight_bytes);
    add("model_n_params", info.parameters);
    add("n_threads", session.threads());
    add("n_prompt", test.prompt);
    add("n_gen", test.generate);
    add("n_depth", test.depth);
    add("test_time", quoted(time));
    for (const auto& [unit, x] : {std::pair<std::string, std::vector<double>>("ns", ns), {"ts", ts}}) {
        std::string samples;
        for (const double v : x) samples += (samples.empty() ? "" : ", ") + std::to_string(v);
        add("avg_" + unit, mean(x));
        add("stddev_" + unit, deviation(x));
        add("samples_" + unit, (json ? '[' : '"') + samples + (json ? ']' : '"'));
    }
    if (json) std::cout << (first ? "[" : ",") << "\n  {" << values.str() << "\n  }" << std::flush;
    else std::cout << (first ? names.str() + "\n" : "") << values.str() << std::endl;
}

void run(Options o) {
    llm::LoadOptions load;
    load.dtype = o.at("--dtype") == "f32" ? llm::DType::f32 : llm::DType::q8_0;
    load.threads = numbers(o, "-t", 0)[0];
    const llm::Model model = llm::Model::load(o.at("-m"), load);
    if (o["-p"].empty()) o["-p"] = std::to_string(std::min(512, model.config().context_length));

    std::vector<Test> tests;
    int longest = 1;
    for (const int depth : numbers(o, "-d", 0)) {
        for (const int n : numbers(o, "-p", 0)) tests.push_back({n, 0, depth});
        for (const int n : numbers(o, "-n", 0)) tests.push_back({0, n, depth});
    }
    for (const Test& t : tests) longest = std::max(longest, t.depth + t.prompt + t.generate);
    std::vector<int> tokens;
    std::minstd_rand random(1);
    while (int(tokens.size()) < longest) tokens.push_back(int(random() % unsigned(model.config().vocab_size)));

    llm::Session session(model, longest, load.threads);
    const int repetitions = numbers(o, "-r", 1)[0];
    const bool show = o.at("-q") == "no" && isatty(STDERR_FILENO);
    bool first = true;
    for (const Test& test : tests) {
        if (test.prompt + test.generate == 0) continue;
        std::vector<double> ns;
        measure(session, {std::min(test.prompt, 64), std::min(test.generate, 4), test.depth}, tokens);  // to warm up
        for (int i = 1; i <= repetitions; ++i) {
            if (show) std::cerr << "\r\033[K" << test.name() << ": " << i << " of " << repetitions;
            ns.push_back(measure(session, test, tokens));
        }
        if (show) std::cerr << "\r\033[K";
        report(o, session, test, ns, std::exchange(first, false));
    }
    if (o.at("-o") == "json") std::cout << (first ? "[" : "") << "\n]" << std::endl;
    if (!std::cout) throw llm::Error("cannot write to standard output");
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const Options o = parse({argv + std::min(argc, 1), argv + argc});
        if (o.at("-h") == "yes") std::cout << kUsage;
        else run(o);
        return 0;
    } catch (const std::exception& e) {
        std::cerr << "bench: " << e.what() << "\n";
        return 1;
    }
}
