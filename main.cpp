// build/llm: runs a model from the command line. `build/llm --help` says how; llm.h does the work, cli/ holds what is
// around it.

#define LLM_IMPLEMENTATION
#include "llm.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <optional>
#include <random>

#include "cli/batch.h"
#include "cli/flags.h"
#include "cli/json.h"
#include "cli/profile.h"
#include "cli/tasks.h"
#include "cli/terminal.h"

namespace {

using namespace cli;

enum class Task { generate, chat, tokenize, perplexity, info, help, version };

struct Options {
    Task task = Task::generate;
    std::string model = "models/gemma3-tiny";
    std::optional<std::string> prompt, file, batch;
    std::optional<int> n_predict;
    int context = 0, top = 0;  // top > 0: list that many
    int parallel = 0;          // 0: as memory allows
    long long seed = 0;
    bool echo = true, quiet = false, json = false;
    std::optional<int> logprobs;  // how many alternatives of each token
    std::optional<std::string> system, save, load_from;
    llm::Chat::Template chat_template = llm::Chat::Template::automatic;
    ProfileOptions profile;
    llm::LoadOptions load;
    llm::GenerateOptions generate;

    Options() { generate.special = llm::Special::parsed; }  // people write templates by hand
};

// From this table come the parser and --help.
std::vector<Flag> make_flags(Options& o) {
    using Text = const std::string&;
    using Template = llm::Chat::Template;
    llm::Sampling& s = o.generate.sampling;
    const Setter profile = [&o](Text value) {
        std::string& kind = o.profile.kind;
        kind = value.substr(0, value.find(':'));
        if (kind != "step" && kind != "layer" && kind != "trace")
            throw llm::Error("'" + value + "' is none of step, layer, trace and trace:LAYER");
        if (kind.size() < value.size() && kind != "trace")
            throw llm::Error("'" + value + "': only trace takes a layer: trace:LAYER");
        if (kind.size() < value.size()) number(o.profile.layer, 0, INT_MAX)(value.substr(kind.size() + 1));
    };
    const auto task = [&o](Task one) -> Setter {
        return [&o, one](Text) {
            if (o.task != Task::generate && o.task != one && o.task != Task::help)
                throw llm::Error("a second task: choose one");
            if (o.task != Task::help) o.task = one;
        };
    };
    std::vector<std::pair<std::string, Template>> templates;
    for (const Template t : {Template::gemma, Template::chatml, Template::dialogpt, Template::plain})
        templates.emplace_back(llm::Chat::name(t), t);
    return {
        {"-m", "--model", "PATH", "directory, .safetensors, .gguf (models/gemma3-tiny)", text(o.model)},
        {"-p", "--prompt", "TEXT", "text to continue; also the first free argument", once(o.prompt)},
        {"-f", "--file", "PATH", "the file that holds the prompt, - is standard input", once(o.file)},
        {"-n", "--n-predict", "N", "tokens to generate, -1: fill the context (256)", number(o.n_predict, -1, INT_MAX)},
        {"-c", "--ctx-size", "N", "positions, 0: the model's own, at most 8192 (0)", number(o.context, 0, INT_MAX)},
        {"-t", "--threads", "N", "threads, 0: one for each physical core (0)", number(o.load.threads, 0, 1024)},
        {"", "--dtype", "TYPE", "how matrices are held: native (as the file has them), q8_0, q4_0 or f32 (native)",
         dtype(o.load.dtype)},
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
        {"", "--no-special", "", "<end_of_turn> and the like in the prompt are text, not tokens",
         turn(o.generate.special, llm::Special::as_text)},
        {"", "--no-display-prompt", "", "print the continuation alone", turn(o.echo, false)},
        {"", "--logprobs", "N", "each token as a line of JSON, with its N likeliest alternatives",
         number(o.logprobs, 0, INT_MAX)},
        {"", "--json", "", "the result as one JSON object: text, tokens, timings, why it ended", turn(o.json, true)},
        {"", "--save", "PATH", "write the session to a file at the end", once(o.save)},
        {"", "--load", "PATH", "go on from a saved session of the same model", once(o.load_from)},
        {"", "--batch", "PATH", "task: a text for each line of a file (-: standard input), as lines of JSON",
         once(o.batch)},
        {"", "--parallel", "N", "of these, how many in one step, at most 256; 0: up to 32, as memory allows (0)",
         number(o.parallel, 0, 256)},
        {"", "--chat", "", "task: a conversation, each line a turn; \\ at its end continues it", task(Task::chat)},
        {"", "--system", "TEXT", "what comes before the conversation", once(o.system)},
        {"", "--chat-template", "NAME", "gemma, chatml, dialogpt, or plain: continue what is written (the model's own)",
         choice(o.chat_template, templates)},
        {"", "--top", "N", "task: likeliest next tokens (id, logit, probability, piece)", number(o.top, 1, INT_MAX)},
        {"", "--tokenize", "", "task: the tokens of the prompt (id, piece)", task(Task::tokenize)},
        {"", "--perplexity", "", "task: of the prompt, with -n of its first N tokens", task(Task::perplexity)},
        {"", "--info", "", "task: what is in the model's file and what it becomes", task(Task::info)},
        {"", "--profile", "KIND", "time of each step, of each layer, or trace[:LAYER]: its operations", profile},
        {"-q", "--quiet", "", "no progress and no statistics", turn(o.quiet, true)},
        {"-h", "--help", "", "this text", turn(o.task, Task::help)},
        {"", "--version", "", "task: the version of llm.h", task(Task::version)},
    };
}

std::string usage(const std::vector<Flag>& flags) {
    std::string text =
        "usage: llm [options] [--] [PROMPT]\n"
        "Prints the prompt and how a GPT-2 or Gemma 3 model continues it, or does another task. Results go to\n"
        "standard output, all else to standard error. Lists escape control characters and broken UTF-8.\n\n";
    for (const Flag& f : flags)
        text += format("  %2s%c %-20s %s\n", f.short_name.c_str(), f.short_name.empty() ? ' ' : ',',
                       (f.long_name + " " + f.argument).c_str(), f.help.c_str());
    return text +
           "\nCtrl-C ends a text cleanly, and pressed again the program; Ctrl-D leaves a conversation. NO_COLOR in "
           "the\nenvironment turns colours off. Exit status: 0 all done, 1 an error, 130 ended by Ctrl-C.\n";
}

// ---- Writing text

volatile std::sig_atomic_t streaming = 0, interrupted = 0;

// Ctrl-C ends a text cleanly. At other times, and when pressed twice, it ends the program.
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
    if (stats.end == llm::End::interrupted) std::fputs(clear_line(), stderr);  // the bar
    if (!(o.json || o.logprobs)) print("\n");
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

int generate(llm::Session& session, Options o, const std::string& prompt) {
    const bool as_json = o.json || o.logprobs;
    std::string text, tokens;
    o.generate.likeliest = o.logprobs.value_or(0);
    if (as_json)
        o.generate.on_token = [&](const llm::TokenInfo& token) {
            if (o.json) tokens += (tokens.empty() ? "" : ",") + json_of(token);
            else print(json_of(token) + "\n");
            return !interrupted;
        };
    const std::string echo = o.echo && !as_json ? users(prompt) : "";
    const auto stats = stream(o, echo, [&](const auto& options, const auto& on_text) {
        return llm::generate(session, prompt, options, [&](std::string_view piece) {
            text += piece;
            return as_json ? !interrupted : on_text(piece);
        });
    });
    if (o.json)
        print("{\"prompt\":" + json_string(prompt) + ",\"text\":" + json_string(text) + "," +
              json_of(stats, interrupted) + format(",\"seed\":%lld,\"tokens\":[", o.seed) + tokens + "]}\n");
    report(stats, session, o);
    return interrupted ? 130 : 0;
}

int chat(llm::Session& session, Options o, const std::string& first) {
    llm::Chat chat(session, o.system.value_or(""), o.chat_template);
    const bool has_template = !session.model().tokenizer().chat_template().empty();
    if (has_template && chat.used() == llm::Chat::Template::plain && o.chat_template != chat.used())
        std::fprintf(stderr,
                     "llm: the model's chat template is of no known kind, so turns are plain text: "
                     "--chat-template chooses another\n");
    llm::Sampler sampler(o.generate.sampling);  // goes on, or equal questions would get equal answers
    o.generate.sampler = &sampler;
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
            if (e.kind == llm::Error::Kind::system) throw;  // such as a full disk: it would be the same next time
            print_error(e.what());
            status = ask ? 0 : 1;
        }
        if (chat.dropped_turns() > dropped)
            std::fprintf(stderr, "llm: the context is full: the oldest turns are forgotten (%d)\n",
                         chat.dropped_turns() - dropped);
    }
    if (ask) print("\n");
    report(total, session, o);
    return status;
}

// A text for each line. Those that are done are printed as soon as all before them are.
int batch(llm::Session& session, const Options& o) {
    const llm::Tokenizer& tokenizer = session.model().tokenizer();
    const auto check = [&](const llm::Request& r) {
        (void)llm::Sampler(r.options.sampling);
        const std::size_t n = tokenizer.encode(r.prompt, r.options.special, session.position() == 0).size();
        if (n > static_cast<std::size_t>(session.context() - session.position()))
            throw llm::Error(format("prompt of %zu tokens, context of %d: shorten it or see -c", n, session.context()));
    };
    std::vector<BatchLine> lines = read_batch(read_file(*o.batch), o.generate, check);
    std::vector<llm::Request> requests;
    std::vector<std::size_t> line_of;  // of each request
    std::vector<std::string> tokens(lines.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (!lines[i].error.empty()) {
            print_error(format("line %d: %s", lines[i].number, lines[i].error.c_str()).c_str());
            continue;
        }
        llm::GenerateOptions& options = requests.emplace_back(lines[i].request).options;
        options.on_prompt = [](int, int) { return !interrupted; };
        if (o.logprobs) {
            options.likeliest = *o.logprobs;
            options.on_token = [&text = tokens[i]](const llm::TokenInfo& token) {
                text += (text.empty() ? "" : ",") + json_of(token);
                return true;
            };
        }
        line_of.push_back(i);
    }
    const Streaming now;
    const auto start = std::chrono::steady_clock::now();
    std::size_t printed = 0, ended = 0, prompt_tokens = 0, generated = 0;
    const auto print_ready = [&] {
        for (; printed < lines.size() && !lines[printed].result.empty(); ++printed) print(lines[printed].result);
    };
    print_ready();
    generate_many(
        session, requests, [](int, std::string_view) { return !interrupted; }, o.parallel,
        [&](int i, const llm::Completion& text) {
            BatchLine& line = lines[line_of[static_cast<std::size_t>(i)]];
            line.result = json_of(line, text, interrupted, tokens[line_of[static_cast<std::size_t>(i)]]);
            prompt_tokens += static_cast<std::size_t>(text.stats.prompt_tokens);
            generated += text.tokens.size();
            ++ended;
            if (o.load.progress) o.load.progress(float(ended) / float(requests.size()), "texts");
            print_ready();
            return !interrupted;
        });
    const double seconds = std::max(llm::detail::seconds_since(start), 1e-9);
    if (!o.quiet)
        std::fprintf(stderr, "%stexts: %zu; prompts: %zu tokens; generated: %zu tokens; %.1f s, %.1f tokens/s in all\n",
                     clear_line(), ended, prompt_tokens, generated, seconds,
                     double(prompt_tokens + generated) / seconds);
    return interrupted ? 130 : requests.size() < lines.size() ? 1 : 0;
}

int write_text(llm::Session& session, const Options& o, const std::string& prompt) {
    Profile profile(o.profile);
    if (!o.profile.kind.empty()) session.on_timing([&](const llm::Timing& t) { profile.add(t); });
    const int status = o.batch                ? batch(session, o)
                       : o.task == Task::chat ? chat(session, o, prompt)
                                              : generate(session, o, prompt);
    if (o.save) session.save(*o.save);
    if (!o.profile.kind.empty()) std::fprintf(stderr, "\n%s", profile.text().c_str());
    return status;
}

int run(const std::vector<std::string>& args) {
    Options o;
    const std::vector<Flag> flags = make_flags(o);
    parse(args, flags, "--help", "--prompt");
    if (o.task == Task::help) return print(usage(flags)), 0;
    if (o.task == Task::version) return print("llm " LLM_VERSION "\n"), 0;
    if (o.prompt && o.file) throw llm::Error("both a prompt and --file are given: choose one");
    if (o.batch && (o.prompt || o.file || o.task != Task::generate || o.top > 0 || o.save || o.generate.lookup))
        throw llm::Error("--batch: has its own prompts and results: leave out prompts, other tasks, --save, --lookup");
    if (o.task != Task::generate && o.top > 0) throw llm::Error("--top: a second task: choose one");
    if (o.parallel > 0 && !o.batch) throw llm::Error("--parallel is for --batch: leave it out");
    if (o.task != Task::chat && (o.system || o.chat_template != llm::Chat::Template::automatic))
        throw llm::Error("--system and --chat-template are for --chat: leave them out");
    const std::string prompt = o.file ? read_file(*o.file) : o.prompt.value_or("");
    if (!o.quiet && on_terminal()) o.load.progress = show_progress;
    if (o.seed == -1) o.seed = std::random_device()();
    o.generate.sampling.seed = static_cast<std::uint64_t>(o.seed);
    o.generate.max_tokens = o.n_predict.value_or(o.generate.max_tokens);

    const bool writes = o.task == Task::chat || (o.task == Task::generate && o.top == 0);
    if (!writes && (o.save || o.load_from || !o.profile.kind.empty()))
        throw llm::Error("--save, --load and --profile are for writing text and for --chat: leave them out");
    closed_is_error = o.save.has_value();
    if ((o.json || o.logprobs) && (!writes || o.task == Task::chat))
        throw llm::Error("--json and --logprobs are for writing text: leave them out");
    const llm::Model model = llm::Model::load(o.model, o.load);
    std::vector<int> ids = model.tokenizer().encode(prompt, o.generate.special);
    const int bos = model.tokenizer().bos();
    if (ids.empty() && o.top > 0) ids = {bos};
    if (!o.load_from && o.task != Task::chat && ids.size() > 1 && ids[0] == bos && ids[1] == bos)
        std::fprintf(stderr, "llm: the prompt begins with %s, which it gets anyway: now there are two\n",
                     model.tokenizer().piece(bos).c_str());
    if (o.task == Task::tokenize) return print(list_tokens(model.tokenizer(), ids)), 0;
    llm::Session session(model, o.context, o.load.threads);
    if (o.load_from) session.load(*o.load_from);
    if (ids.size() > static_cast<std::size_t>(session.context()) && o.task != Task::perplexity)
        throw llm::Error(
            format("prompt of %zu tokens, context of %d: shorten it or see -c", ids.size(), session.context()));
    if (o.profile.kind == "trace" && o.profile.layer >= model.config().num_layers)
        throw llm::Error(
            format("--profile: there is no layer %d: choose 0 to %d", o.profile.layer, model.config().num_layers - 1));
    if (writes) return write_text(session, o, prompt);
    if (o.task == Task::info) return print(describe(session, o.model)), 0;
    if (o.top > 0) return print(list_top(session, ids, o.top)), 0;
    if (o.n_predict.value_or(-1) >= 0) ids.resize(std::min(ids.size(), static_cast<std::size_t>(*o.n_predict)));
    return print(perplexity(session, ids, o.load.progress)), 0;
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