// build/llm: runs a model from the command line. `build/llm --help` says how; llm.h does the work.

#define LLM_IMPLEMENTATION
#include "llm.h"

#ifdef _WIN32
#include <windows.h>
// after it
#include <shellapi.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>

namespace {

enum class Task { generate, chat, tokenize, perplexity, info, help, version };

struct Options {
    Task task = Task::generate;
    std::string model = "models/gemma3-tiny";
    std::optional<std::string> prompt, file;
    std::optional<int> n_predict;
    int context = 0, top = 0;  // top > 0: list that many
    long long seed = 0;
    bool echo = true, quiet = false;
    std::string system, save, load_from;
    llm::Chat::Template chat_template = llm::Chat::Template::automatic;
    std::string profile;    // step, layer or trace
    int profile_layer = 0;  // for trace
    llm::LoadOptions load;
    llm::GenerateOptions generate;
};

template <class... Values> std::string format(const char* pattern, Values... values) {
    std::string text(static_cast<std::size_t>(std::snprintf(nullptr, 0, pattern, values...)), '\0');
    std::snprintf(text.data(), text.size() + 1, pattern, values...);
    return text;
}

// ---- The command line: one table of flags, from which come both the parser and --help

using Setter = std::function<void(const std::string& value)>;  // throws what is wrong with the value

struct Flag {
    std::string short_name, long_name, argument, help;  // argument: what --help calls the value, "" for a switch
    Setter set;
};

template <class T, class Target> Setter number(Target& target, T lowest, T highest) {
    return [&target, lowest, highest](const std::string& text) {
        std::istringstream in(text);
        T value{};
        if (!(in >> std::noskipws >> value) || in.peek() != EOF || value < lowest || value > highest)
            throw llm::Error(format("'%s' is not a %snumber from %.10g to %.10g", text.c_str(),
                                    std::is_integral_v<T> ? "whole " : "", double(lowest), double(highest)));
        target = value;
    };
}

Setter once(std::optional<std::string>& target) {
    return [&target](const std::string& value) {
        if (target) throw llm::Error("given twice, now as '" + value + "': put a text with spaces in quotes");
        target = value;
    };
}

template <class T> Setter turn(T& target, T to) {
    return [&target, to](const std::string&) { target = to; };
}

std::vector<Flag> make_flags(Options& o) {
    using Text = const std::string&;
    llm::Sampling& s = o.generate.sampling;
    const Setter dtype = [&o](Text value) {
        if (value != "f32" && value != "q8_0") throw llm::Error("'" + value + "' is neither f32 nor q8_0");
        o.load.dtype = value == "f32" ? llm::DType::f32 : llm::DType::q8_0;
    };
    const Setter profile = [&o](Text value) {
        o.profile = value.substr(0, value.find(':'));
        if (o.profile != "step" && o.profile != "layer" && o.profile != "trace")
            throw llm::Error("'" + value + "' is none of step, layer, trace and trace:LAYER");
        if (o.profile.size() < value.size()) number(o.profile_layer, 0, INT_MAX)(value.substr(o.profile.size() + 1));
    };
    const Setter chat_template = [&o](Text value) {
        if (value != "gemma" && value != "plain") throw llm::Error("'" + value + "' is neither gemma nor plain");
        o.chat_template = value == "gemma" ? llm::Chat::Template::gemma : llm::Chat::Template::plain;
    };
    return {
        {"-m", "--model", "PATH", "directory, .safetensors, .gguf (models/gemma3-tiny)", [&o](Text t) { o.model = t; }},
        {"-p", "--prompt", "TEXT", "text to continue; also the first free argument", once(o.prompt)},
        {"-f", "--file", "PATH", "the file that holds the prompt, - is standard input", once(o.file)},
        {"-n", "--n-predict", "N", "tokens to generate, -1: fill the context (256)", number(o.n_predict, -1, INT_MAX)},
        {"-c", "--ctx-size", "N", "positions, 0: the model's own, at most 8192 (0)", number(o.context, 0, INT_MAX)},
        {"-t", "--threads", "N", "threads, 0: one for each physical core (0)", number(o.load.threads, 0, 1024)},
        {"", "--dtype", "TYPE", "how matrices are held: q8_0 or f32 (q8_0)", dtype},
        {"", "--temp", "X", "temperature, 0: always the likeliest token (0.8)", number(s.temperature, 0.0f, 1e6f)},
        {"", "--top-k", "N", "sample from the N likeliest tokens, 0: all (40)", number(s.top_k, 0, INT_MAX)},
        {"", "--top-p", "X", "of these, those that together have probability X (0.95)", number(s.top_p, 0.0f, 1.0f)},
        {"", "--min-p", "X", "of these, those X times as likely as the first (0.05)", number(s.min_p, 0.0f, 1.0f)},
        {"", "--repeat-penalty", "X", "against repetition, 1: off (1)", number(s.repeat_penalty, 1e-6f, 1e6f)},
        {"", "--repeat-last-n", "N", "how many of the last tokens it looks at (64)",
         number(s.repeat_last_n, 0, 1 << 24)},
        {"-s", "--seed", "N", "same seed, same text; -1: a new one (0)", number(o.seed, -1LL, LLONG_MAX)},
        {"", "--stop", "TEXT", "end before this; repeatable", [&o](Text t) { o.generate.stop.push_back(t); }},
        {"", "--ignore-eos", "", "go on after an end-of-text token", turn(o.generate.ignore_end, true)},
        {"", "--lookup", "N", "guess up to N tokens from the text so far (at most 11): same text, faster (0)",
         number(o.generate.lookup, 0, 11)},
        {"", "--no-display-prompt", "", "print the continuation alone", turn(o.echo, false)},
        {"", "--save", "PATH", "write the session to a file at the end", [&o](Text t) { o.save = t; }},
        {"", "--load", "PATH", "go on from a saved session of the same model", [&o](Text t) { o.load_from = t; }},
        {"", "--chat", "", "task: a conversation, each line a turn; \\ at its end continues it",
         turn(o.task, Task::chat)},
        {"", "--system", "TEXT", "what comes before the conversation", [&o](Text t) { o.system = t; }},
        {"", "--chat-template", "NAME", "gemma, or plain: continue what is written (as the model was trained)",
         chat_template},
        {"", "--top", "N", "task: likeliest next tokens (id, logit, probability, piece)", number(o.top, 1, INT_MAX)},
        {"", "--tokenize", "", "task: the tokens of the prompt (id, piece)", turn(o.task, Task::tokenize)},
        {"", "--perplexity", "", "task: of the prompt, with -n of its first N tokens", turn(o.task, Task::perplexity)},
        {"", "--info", "", "task: what is in the model's file and what it becomes", turn(o.task, Task::info)},
        {"", "--profile", "KIND", "time of each step, of each layer, or trace[:LAYER]: its operations", profile},
        {"-q", "--quiet", "", "only the result and errors", turn(o.quiet, true)},
        {"-h", "--help", "", "this text", turn(o.task, Task::help)},
        {"", "--version", "", "task: the version of llm.h", turn(o.task, Task::version)},
    };
}

void parse(const std::vector<std::string>& args, const std::vector<Flag>& flags) {
    for (std::size_t i = 0; i < args.size(); ++i) {
        std::string name = args[i];
        std::optional<std::string> value;
        if (name.size() < 2 || name[0] != '-') {
            value = name;
            name = "--prompt";
        } else if (const std::size_t equals = name.find('='); name[1] == '-' && equals != std::string::npos) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        const auto is_meant = [&](const Flag& f) { return name == f.short_name || name == f.long_name; };
        const auto flag = std::find_if(flags.begin(), flags.end(), is_meant);
        if (flag == flags.end()) throw llm::Error(name + ": unknown option: try --help");
        if (flag->argument.empty() && value) throw llm::Error(name + ": takes no value: '" + *value + "'");
        if (!flag->argument.empty() && !value) {
            if (++i == args.size()) throw llm::Error(name + ": its value is missing: try --help");
            value = args[i];
        }
        try {
            flag->set(value.value_or(""));
        } catch (const llm::Error& e) {
            throw llm::Error(name + ": " + e.what());
        }
    }
}

std::string usage(const std::vector<Flag>& flags) {
    std::string text =
        "usage: llm [options] [PROMPT]\n"
        "Prints the prompt and how a GPT-2 or Gemma 3 model continues it, or does another task. Results go to\n"
        "standard output, all else to standard error. Lists escape control characters and broken UTF-8.\n\n";
    for (const Flag& f : flags)
        text += format("  %2s%c %-20s %s\n", f.short_name.c_str(), f.short_name.empty() ? ' ' : ',',
                       (f.long_name + " " + f.argument).c_str(), f.help.c_str());
    return text +
           "\nCtrl-C ends a text in good order, and pressed again the program; Ctrl-D leaves a conversation. NO_COLOR "
           "in\n"
           "the environment turns colours off. Exit status: 0 all done, 1 an error, 130 ended by Ctrl-C.\n";
}

// ---- Input and output

void print(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
    if (errno == EPIPE) std::_Exit(0);  // nobody reads any more
    throw llm::Error(std::string("cannot write to standard output: ") + std::strerror(errno));
}

bool is_terminal(int descriptor) {
    const char* const kind = std::getenv("TERM");
    return isatty(descriptor) != 0 && !(kind && std::strcmp(kind, "dumb") == 0);
}
bool on_terminal() { return is_terminal(STDERR_FILENO); }
const char* clear_line() { return on_terminal() ? "\r\033[K" : ""; }

// What the user says is green, errors are red: on a terminal, unless NO_COLOR is set (no-color.org).
std::string colored(int descriptor, const char* color, const std::string& text) {
    const char* const no_color = std::getenv("NO_COLOR");
    if (text.empty() || !is_terminal(descriptor) || (no_color && *no_color)) return text;
    return format("\033[%sm", color) + text + "\033[0m";
}
std::string users(const std::string& text) { return colored(STDOUT_FILENO, "32", text); }
void print_error(const char* message) {
    std::fprintf(stderr, "%s%s %s\n", clear_line(), colored(STDERR_FILENO, "31", "llm:").c_str(), message);
}

void show_progress(float done, const char* what) {
    const std::string bar(static_cast<std::size_t>(30 * std::clamp(done, 0.0f, 1.0f)), '#');
    std::fprintf(stderr, "\r[%-30s] %s\033[K%s", bar.c_str(), what, done >= 1 ? clear_line() : "");
}

std::string read_file(const std::string& path) {
    std::ifstream file;
    if (path != "-") file.open(llm::detail::to_path(path), std::ios::binary);
    std::istream& in = path == "-" ? std::cin : file;
    std::ostringstream text;
    if (in.peek() != EOF) text << in.rdbuf();
    if (in.fail() && !in.eof()) throw llm::Error("cannot read the prompt: " + path + ": " + std::strerror(errno));
    return text.str();
}

// One line of valid UTF-8 without tabs, whatever the bytes.
std::string escaped(std::string_view bytes) {
    std::string text;
    for (std::size_t i = 0, n = 0; i < bytes.size(); i += n) {
        const int c = static_cast<unsigned char>(bytes[i]);
        const std::size_t length = c < 0x80 ? 1 : c < 0xC2 || c > 0xF4 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        for (n = 1; n < length && i + n < bytes.size() && (bytes[i + n] & 0xC0) == 0x80;) ++n;
        const bool plain = n == length && c >= ' ' && c != 127 && c != '\\';
        if (!plain) n = 1;
        const char* const name = c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : nullptr;
        text += plain ? std::string(bytes.substr(i, n)) : name ? name : format("\\x%02x", c);
    }
    return text;
}

// ---- Profiling: where the time goes, in tables on standard error once the task is done

class Profile {
  public:
    explicit Profile(const Options& o) : options_(o) {}

    void add(const llm::Timing& t) {
        if (t.part != std::string_view("step")) {
            step_.push_back(t);
            return;
        }
        Phase& phase = phases_[t.tokens > 1];
        for (const llm::Timing& part : step_) merge(phase.sums, part);
        phase.seconds.push_back(
            std::accumulate(step_.begin(), step_.end(), t.seconds, [](double sum, const auto& part) {
                return sum + (part.part == std::string_view("sampling") ? part.seconds : 0);
            }));
        if (options_.profile == "step")
            lines_ +=
                line(phases_[0].seconds.size() + phases_[1].seconds.size(), t.tokens, phase.seconds.back(), step_);
        step_.clear();
    }

    std::string text() const {
        std::string text = options_.profile == "step" ? heading("step tokens") + lines_ : "";
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
            if (options_.profile == "layer") text += layers(phase);
            if (options_.profile == "trace") text += trace(phase);
        }
        return text;
    }
  private:
    using Timings = std::vector<llm::Timing>;
    struct Phase {  // steps of one token, or of several
        std::vector<double> seconds{};
        Timings sums{};  // of each layer and operation
    };
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
    static std::string heading(const std::string& first) {
        std::string text = format("%-11s       ms   GB/s", first.c_str());
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
    static std::string line(std::size_t step, int tokens, double seconds, const Timings& timings) {
        return format("%4zu %6d", step, tokens) + shares(seconds, 1, timings);
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
        const auto shown = [&](const llm::Timing& t) { return t.layer == options_.profile_layer; };
        for (const llm::Timing& t : phase.sums) all += shown(t) ? t.seconds : 0;
        std::string text = format("  layer %-3d                       us      %%       MB   GB/s    MFLOP   GFLOP/s\n",
                                  options_.profile_layer);
        for (const llm::Timing& t : phase.sums) {
            if (!shown(t)) continue;
            const auto rate = [&](std::uint64_t amount) { return double(amount) / t.seconds / 1e9; };
            text += format("  %-10s %-14s %8.2f  %5.1f", t.part, t.operation, 1e6 * t.seconds / steps,
                           100 * t.seconds / all);
            if (t.bytes) text += format("  %7.3f %6.1f", double(t.bytes) / steps / 1e6, rate(t.bytes));
            if (t.operations) text += format("  %7.2f %9.1f", double(t.operations) / steps / 1e6, rate(t.operations));
            text += "\n";
        }
        return text + format("  %-25s %8.2f  100.0\n", "all", 1e6 * all / steps);
    }

    const Options& options_;
    Timings step_;
    Phase phases_[2];
    std::string lines_;
    std::size_t next_ = 0;
};

// ---- Tasks

volatile std::sig_atomic_t streaming = 0, interrupted = 0;

// Ctrl-C ends a text in good order. At other times, and when pressed twice, it ends the program.
extern "C" void on_interrupt(int) {
    if (!streaming || interrupted) std::_Exit(130);
    interrupted = 1;
}

struct Streaming {
    Streaming() {
        interrupted = 0;
        streaming = 1;
    }
    ~Streaming() { streaming = 0; }
};

// Runs write(options, on_text), which is generate or a turn of a chat: Ctrl-C ends it, and a prompt that takes more
// than a second gets a bar. `echo` goes out before the text.
template <class Write> llm::Stats stream(const Options& o, const std::string& echo, const Write& write) {
    const Streaming now;
    const auto start = std::chrono::steady_clock::now();
    llm::GenerateOptions options = o.generate;
    options.on_prompt = [&](int done, int total) {
        const double expected = llm::detail::seconds_since(start) * total / done;
        if (o.load.progress && expected > 1) o.load.progress(float(done) / float(total), "prompt");
        if (done == total) print(echo);
        return !interrupted;
    };
    const llm::Stats stats = write(options, [](std::string_view text) {
        print(text);
        return !interrupted;
    });
    print(interrupted ? clear_line() + std::string("\n") : "\n");
    return stats;
}

void report(const llm::Stats& stats, const llm::Session& session, const Options& o) {
    if (o.quiet) return;
    std::fprintf(stderr, "prompt: %d tokens, %.1f tokens/s; generated: %d tokens, %.1f tokens/s; ", stats.prompt_tokens,
                 stats.prompt_tokens / std::max(stats.prompt_s, 1e-9), stats.generated,
                 stats.generated / std::max(stats.generate_s, 1e-9));
    if (o.generate.lookup) std::fprintf(stderr, "guessed right: %d of %d; ", stats.guessed_right, stats.guessed);
    std::fprintf(stderr, "seed %lld%s\n", o.seed,
                 session.position() == session.context() ? "; the context is full" : "");
}

int generate(llm::Session& session, const Options& o, const std::string& prompt) {
    const auto stats = stream(o, o.echo ? users(prompt) : "", [&](const auto& options, const auto& on_text) {
        return llm::generate(session, prompt, options, on_text);
    });
    report(stats, session, o);
    return interrupted ? 130 : 0;
}

// Lines up to the first that does not end in a backslash. Nothing at the end of the input.
std::optional<std::string> read_message(bool ask) {
    std::string message, line;
    for (bool more = true; more;) {
        if (ask) print(users(message.empty() ? "> " : ". "));
        if (!std::getline(std::cin, line)) return message.empty() ? std::nullopt : std::optional(message);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        more = !line.empty() && line.back() == '\\';
        if (more) line.back() = '\n';
        message += line;
    }
    return message;
}

int chat(llm::Session& session, Options o, const std::string& first) {
    llm::Chat chat(session, o.system, o.chat_template);
    const bool ask = is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO);
    llm::Stats total;
    int status = 0;
    for (auto message = first.empty() ? read_message(ask) : first; message; message = read_message(ask)) {
        if (message->find_first_not_of(" \t\n") == std::string::npos) continue;
        const int dropped = chat.dropped_turns();
        try {
            const auto stats = stream(
                o, "", [&](const auto& options, const auto& on_text) { return chat.say(*message, options, on_text); });
            total.prompt_tokens += stats.prompt_tokens, total.prompt_s += stats.prompt_s;
            total.generated += stats.generated, total.generate_s += stats.generate_s;
            total.guessed += stats.guessed, total.guessed_right += stats.guessed_right;
        } catch (const llm::Error& e) {
            print_error(e.what());
            status = ask ? 0 : 1;
        }
        if (chat.dropped_turns() > dropped)
            std::fprintf(stderr, "llm: the context is full: the oldest turns are forgotten (%d)\n",
                         chat.dropped_turns() - dropped);
        ++o.generate.sampling.seed;  // or equal questions would get equal answers
    }
    if (ask) print("\n");
    report(total, session, o);
    return status;
}

double log_sum_exp(const float* x, int n) {
    double highest = *std::max_element(x, x + n), sum = 0;
    for (int i = 0; i < n; ++i) sum += std::exp(x[i] - highest);
    return highest + std::log(sum);
}

std::string list_top(llm::Session& session, const std::vector<int>& prompt, int count) {
    const llm::Tokenizer& tokenizer = session.model().tokenizer();
    const int vocab = session.model().config().vocab_size, known = std::min(vocab, tokenizer.vocab_size());
    const float* logits = session.forward(prompt.data(), static_cast<int>(prompt.size()));
    const double all = log_sum_exp(logits, vocab);
    std::vector<std::pair<float, int>> best;
    for (int id = 0; id < known; ++id) best.emplace_back(-logits[id], id);
    std::partial_sort(best.begin(), best.begin() + std::min(count, known), best.end());
    best.resize(static_cast<std::size_t>(std::min(count, known)));
    std::string text;
    for (const auto& [negated, id] : best)
        text += format("%d\t%.7g\t%.6g\t%s\n", id, double{logits[id]}, std::exp(logits[id] - all),
                       escaped(tokenizer.piece(id)).c_str());
    return text;
}

// exp of the mean negative log likelihood of all tokens but the first. A text longer than the context goes through
// windows that advance by half a context; tokens that one has counted, the next only reads: so each is counted once,
// later than the first window with half a context before it. Each window begins with <bos> if the text does (Gemma).
std::string perplexity(llm::Session& session, const std::vector<int>& ids, const Options& o) {
    const int vocab = session.model().config().vocab_size, context = session.context();
    const int total = static_cast<int>(ids.size());
    if (total < 2 || context < 2) throw llm::Error("--perplexity: nothing to predict: give two tokens or more");
    if (*std::max_element(ids.begin(), ids.end()) >= vocab) throw llm::Error("--perplexity: a token has no embedding");
    double nll = 0;
    for (int end = context, counted = 1; counted < total; end += context / 2) {
        const int start = end - context, stop = std::min(end, total), read = counted - 1 - start;
        std::vector<int> window(ids.begin() + start, ids.begin() + stop);
        if (ids[0] == session.model().tokenizer().bos()) window[0] = ids[0];
        session.rewind(0);
        if (read > 0) session.forward(window.data(), read);
        session.forward_each(window.data() + read, stop - counted, [&](int i, const float* logits) {
            nll += log_sum_exp(logits, vocab) - logits[ids.data()[counted + i]];
        });
        counted = stop;
        if (o.load.progress) o.load.progress(float(counted) / float(total), "perplexity");
    }
    nll /= total - 1;
    return format("perplexity: %#.6g  (%d tokens, nll %#.6g)\n", std::exp(nll), total, nll);
}

std::string describe(const llm::Session& session, const std::string& path) {
    const llm::Model& model = session.model();
    const llm::Config& c = model.config();
    const llm::ModelInfo& info = model.info();
    const auto local = std::count(c.is_local.begin(), c.is_local.end(), true);
    std::string tensors;
    for (const auto& [type, count] : info.tensors) tensors += format("%d %s, ", count, type.c_str());
    const auto mega = [](auto count) { return double(count) / 1e6; };
    return format("model         %s (%s)\n", path.c_str(), info.format.c_str()) +
           format("architecture  %s\n", c.architecture == "gpt2" ? "GPT-2" : "Gemma 3") +
           format("parameters    %.2f M\n", mega(info.parameters)) + format("layers        %d", c.num_layers) +
           (local ? format(", %d of them see %d positions", int(local), c.sliding_window) : "") + "\n" +
           format("sizes         hidden %d, feed-forward %d, ", c.hidden_size, c.intermediate_size) +
           format("heads %d of %d, KV heads %d\n", c.num_heads, c.head_dim, c.num_kv_heads) +
           format("vocabulary    %d tokens, head %s\n", c.vocab_size, c.tied_head ? "tied" : "untied") +
           format("context       %d positions of %d\n", session.context(), c.context_length) +
           format("tensors       %s%d ignored\n", tensors.c_str(), info.ignored) +
           format("matrices      %s: ", model.dtype() == llm::DType::f32 ? "f32" : "q8_0") +
           format("%d quantized, %d exact, %d fused\n", info.quantized, info.exact, info.fused) +
           format("memory        %.1f MB weights, ", mega(info.weight_bytes)) +
           format("%.1f MB KV cache and scratch\n", mega(model.session_bytes(session.context())));
}

// The command line in UTF-8, without the program's name; and a console that shows UTF-8.
std::vector<std::string> arguments([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
#ifdef _WIN32
    SetConsoleOutputCP(CP_UTF8);
    std::vector<std::string> args;
    wchar_t** const wide = CommandLineToArgvW(GetCommandLineW(), &argc);
    for (int i = 1; wide && i < argc; ++i) args.push_back(std::filesystem::path(wide[i]).u8string());
    LocalFree(wide);
    return args;
#else
    return {argv + std::min(argc, 1), argv + argc};
#endif
}

int run(const std::vector<std::string>& args) {
    Options o;
    const std::vector<Flag> flags = make_flags(o);
    parse(args, flags);
    if (o.task == Task::help) return print(usage(flags)), 0;
    if (o.task == Task::version) return print("llm " LLM_VERSION "\n"), 0;
    if (o.prompt && o.file) throw llm::Error("both a prompt and --file are given: choose one");
    const std::string prompt = o.file ? read_file(*o.file) : o.prompt.value_or("");
    if (!o.quiet && on_terminal()) o.load.progress = show_progress;
    if (o.seed == -1) o.seed = std::random_device()();
    o.generate.sampling.seed = static_cast<std::uint64_t>(o.seed);
    o.generate.max_tokens = o.n_predict.value_or(o.generate.max_tokens);

    const bool writes = o.task == Task::chat || (o.task == Task::generate && o.top == 0);
    if (!writes && !(o.save + o.load_from).empty())
        throw llm::Error("--save and --load are for writing text and for --chat: leave them out");
    const llm::Model model = llm::Model::load(o.model, o.load);
    std::vector<int> ids = model.tokenizer().encode(prompt, llm::Special::parsed);
    if (ids.empty() && o.top > 0) ids = {model.tokenizer().bos()};
    if (o.task == Task::tokenize) {
        std::string text;
        for (const int id : ids) text += format("%d\t%s\n", id, escaped(model.tokenizer().piece(id)).c_str());
        return print(text), 0;
    }
    llm::Session session(model, o.context, o.load.threads);
    if (!o.load_from.empty()) session.load(o.load_from);
    if (ids.size() > static_cast<std::size_t>(session.context()) && o.task != Task::perplexity)
        throw llm::Error(
            format("prompt of %zu tokens, context of %d: shorten it or see -c", ids.size(), session.context()));
    Profile profile(o);
    if (!o.profile.empty()) session.on_timing([&](const llm::Timing& t) { profile.add(t); });
    if (o.profile == "trace" && o.profile_layer >= model.config().num_layers)
        throw llm::Error(
            format("--profile: there is no layer %d: choose 0 to %d", o.profile_layer, model.config().num_layers - 1));
    if (writes) {
        const int status = o.task == Task::chat ? chat(session, o, prompt) : generate(session, o, prompt);
        if (!o.save.empty()) session.save(o.save);
        if (!o.profile.empty()) std::fprintf(stderr, "\n%s", profile.text().c_str());
        return status;
    }
    if (o.task == Task::info) return print(describe(session, o.model)), 0;
    if (o.top > 0) return print(list_top(session, ids, o.top)), 0;
    if (o.n_predict.value_or(-1) >= 0) ids.resize(std::min(ids.size(), static_cast<std::size_t>(*o.n_predict)));
    return print(perplexity(session, ids, o)), 0;
}

}  // namespace

int main(int argc, char** argv) {
#ifdef SIGPIPE
    std::signal(SIGPIPE, SIG_IGN);  // a closed pipe shall be a failed write
#endif
    std::signal(SIGINT, on_interrupt);
    try {
        return run(arguments(argc, argv));
    } catch (const std::bad_alloc&) {
        print_error("out of memory: try a smaller model or -c");
    } catch (const std::exception& e) {
        print_error(e.what());
    }
    return 1;
}
