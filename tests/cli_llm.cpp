// build/llm on the command line.

#include "programs.h"
#include "support.h"

namespace tests {
namespace {

TEST_CASE("llm: -- ends the options") {
    const std::string model = tiny("gpt2-tiny");
    CHECK(output({"-m", model, "--tokenize", "--", "--help"}) == output({"-m", model, "--tokenize", "-p", "--help"}));
    CHECK(output({"-m", model, "--tokenize", "--", "--"}) == output({"-m", model, "--tokenize", "-p", "--"}));
    CHECK(run_llm({"--tokenize", "--", "one", "two"}).status == 1);
}

TEST_CASE("llm: every flag of --help is known, and one with a value needs it") {
    const TemporaryDirectory directory;
    const std::string session = (directory.path / "session").string();
    const std::map<std::string, std::string> values = {
        {"--model", "models/gpt2-tiny"},
        {"--prompt", "To be"},
        {"--file", ".clang-format"},
        {"--n-predict", "2"},
        {"--ctx-size", "256"},
        {"--threads", "2"},
        {"--dtype", "f32"},
        {"--temp", "0.5"},
        {"--top-k", "5"},
        {"--top-p", "0.5"},
        {"--min-p", "0.5"},
        {"--repeat-penalty", "1.1"},
        {"--repeat-last-n", "5"},
        {"--seed", "7"},
        {"--stop", "zzz"},
        {"--lookup", "3"},
        {"--logprobs", "2"},
        {"--batch", ".clang-format"},
        {"--parallel", "2"},
        {"--save", session},
        {"--load", session},  // which stands below --save
        {"--system", "Speak!"},
        {"--chat-template", "plain"},
        {"--top", "2"},
        {"--profile", "step"},
    };
    const std::set<std::string> switches = {
        "--ignore-eos", "--no-display-prompt", "--chat",       "--tokenize", "--perplexity", "--info", "--quiet",
        "--help",       "--version",           "--no-special", "--json"};
    const std::string help = output({"--help"});
    CHECK(output({"-h"}) == help);
    std::set<std::string> met, known = switches;
    for (const auto& [name, value] : values) known.insert(name);
    for (const auto& line : table(help)) {
        const std::size_t at = line.empty() ? std::string::npos : line[0].find("--");
        if (at != 6) continue;  // where the table's long names stand
        const std::string& row = line[0];
        const std::string name = row.substr(at, row.find(' ', at) - at);
        const bool has_short = row[2] == '-', has_value = row[at + name.size() + 1] != ' ';
        CAPTURE(name);
        CHECK(met.insert(name).second);
        REQUIRE(known.count(name) == 1);
        REQUIRE((values.count(name) > 0) == has_value);
        for (const std::string& spelled : {name, has_short ? row.substr(2, 2) : name}) {
            std::vector<std::string> args = {spelled};
            if (has_value) args.push_back(values.at(name));
            if (name == "--parallel") args.insert(args.end(), {"--batch", ".clang-format"});
            else if (name != "--prompt" && name != "--file" && name != "--batch")
                args.insert(args.end(), {"-p", "To be"});
            if (name == "--system" || name == "--chat-template") args.push_back("--chat");
            if (name != "--n-predict") args.insert(args.end(), {"-n", "2"});
            CHECK(run_llm(args).status == 0);
            const Outcome wrong =
                run_llm(has_value ? std::vector<std::string>{spelled} : std::vector<std::string>{name + "=1"});
            CHECK(wrong.status == 1);
            CHECK(wrong.err.find(has_value ? spelled : name) != std::string::npos);
        }
    }
    CHECK(met == known);
}

TEST_CASE("llm: text goes to standard output, all else to standard error") {
    const Outcome o = run_llm({"-p", "ROMEO:", "-n", "8", "--temp", "0"});
    CHECK(o.status == 0);
    CHECK(o.out.rfind("ROMEO:", 0) == 0);
    CHECK(o.out.back() == '\n');
    for (const char* part : {"prompt: 2 tokens", "generated: 8 tokens", "tokens/s"})
        CHECK(o.err.find(part) != std::string::npos);
    CHECK(o.err.find('\r') == std::string::npos);  // no progress bar: this is no terminal
    const Outcome quiet = run_llm({"ROMEO:", "-n", "8", "--temp", "0", "-q"});
    CHECK(quiet.out == o.out);
    CHECK(quiet.err == "");
    CHECK("ROMEO:" + output({"ROMEO:", "-n", "8", "--temp=0", "--no-display-prompt"}) == o.out);
}

TEST_CASE("llm: a prompt from an argument, a file or standard input is the same") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "prompt").string(), prompt = "it's \"quoted\"\n$HOME \xFF\u00e9\t";
    write_file(file, prompt);
    const std::string expected = output({"--tokenize", "-p", prompt});
    CHECK(output({"--tokenize", prompt}) == expected);
    CHECK(output({"--tokenize", "--prompt=" + prompt}) == expected);
    CHECK(output({"--tokenize", "-f", file}) == expected);
    CHECK(output({"--tokenize", "-f", "-"}, prompt) == expected);
    CHECK(output({"--tokenize", "-f", "-"}, "\xEF\xBB\xBF" + prompt) == expected);  // a byte order mark
    CHECK(output({"--tokenize", "-f", "-"}, "") == "2\t<bos>\n");
}

TEST_CASE("llm --tokenize lists ids and pieces") {
    const Tokenizer tokenizer = load(tiny("gemma3-tiny")).tokenizer();
    const std::string prompt = "Now is\tthe \\ winter\n\u00e9\x01";
    const auto rows = table(output({"--tokenize", prompt}));
    const std::vector<int> ids = tokenizer.encode(prompt, llm::Special::parsed);
    REQUIRE(rows.size() == ids.size());
    std::string all;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        REQUIRE(rows[i].size() == 2);
        CHECK(rows[i][0] == std::to_string(ids[i]));
        all += rows[i][1];
    }
    CHECK(all == "<bos>Now is\\tthe \\\\ winter\\n\\xc3\\xa9\\x01");
}

TEST_CASE("llm --top lists the likeliest next tokens") {
    const JsonDocument golden = golden_numbers("gpt2-tiny");
    const Json& one = golden.root().find("cases")->array()[0];
    const auto rows = table(output({"-m", tiny("gpt2-tiny"), "--dtype", "f32", "--top", "5", text(one, "prompt")}));
    REQUIRE(rows.size() == 5);
    const std::vector<float> logits = floats(*one.find("logits"));
    for (std::size_t i = 0; i < 5; ++i) {
        REQUIRE(rows[i].size() == 4);
        const auto& expected = one.find("top")->array()[i].array();
        CHECK(std::stoi(rows[i][0]) == expected[0].number());
        CHECK(std::stod(rows[i][1]) == doctest::Approx(expected[1].number()).epsilon(1e-4));
        CHECK(std::stod(rows[i][2]) ==
              doctest::Approx(std::exp(expected[1].number() - log_sum_exp(logits))).epsilon(1e-3));
    }
    CHECK(rows[0][3] == "\\n");
    CHECK(table(output({"-m", tiny("gpt2-tiny"), "--top", "100000", "a"})).size() == 768);
    CHECK(table(output({"-m", tiny("gpt2-tiny"), "--top", "3"})).size() == 3);  // without a prompt
}

TEST_CASE("llm --perplexity counts every token but the first once, in windows if the context is smaller") {
    const JsonDocument golden = golden_numbers("gemma3-tiny");
    const Json& one = golden.root().find("perplexity")->array()[0];
    const auto value = [](const std::string& line) {
        REQUIRE(line.rfind("perplexity: ", 0) == 0);
        return std::stod(line.substr(12));
    };
    const std::string exact = output({"--perplexity", "--dtype", "f32", "-n", "240", "-p", text(one, "text")});
    CHECK(value(exact) == doctest::Approx(one.find("ppl")->number()).epsilon(5e-4));
    CHECK(exact.find("240 tokens") != std::string::npos);

    // Windows of 64 that advance by 32
    const Model model = load(tiny("gemma3-tiny"), DType::f32);
    std::vector<int> ids = model.tokenizer().encode(text(one, "text"), llm::Special::parsed);
    ids.resize(240);
    Session session(model);
    double sum = 0;
    for (int begin = 0, counted = 1; counted < 240; begin += 32) {
        const int end = std::min(begin + 64, 240);
        std::vector<int> window(ids.begin() + begin, ids.begin() + end);
        window[0] = ids[0];
        session.rewind(0);
        const Logits logits = logits_of(session, window);
        for (; counted < end; ++counted) {
            const std::vector<float>& row = logits[usize(counted - 1 - begin)];
            sum += log_sum_exp(row) - row[usize(ids[usize(counted)])];
        }
    }
    CHECK(value(output({"--perplexity", "--dtype=f32", "-n", "240", "-c", "64", text(one, "text")})) ==
          doctest::Approx(std::exp(sum / 239)).epsilon(1e-4));
    CHECK(value(output({"--perplexity", "-f", "LICENSE", "-m", tiny("gpt2-tiny")})) > 1);  // longer than the context
}

TEST_CASE("llm --info says what is in the file and what it becomes") {
    const std::string info =
        output({"--info", "-m", (test_data() / "layouts/gemma3-q3_k_m.gguf").string(), "-c", "64"});
    for (const char* part : {"Gemma 3", "GGUF v3", "layers        3", "see 16 positions", "hidden 256",
                             "heads 4 of 64, KV heads 1", "1024 tokens", "head tied", "64 positions of 256", "12 Q3_K",
                             "1 Q6_K", "0 quantized, 13 exact, 15 fused", "MB weights", "MB KV cache"}) {
        CAPTURE(std::string(part));
        CHECK(info.find(part) != std::string::npos);
    }
    CHECK(
        output({"--info", "-m", tiny("gpt2-tiny"), "--dtype", "f32"}).find("17 f32 of 3.5 MB, 0 quantized, 17 exact") !=
        std::string::npos);
    CHECK(output({"--version"}) == "llm " LLM_VERSION "\n");
}

TEST_CASE("llm: sampling flags reach the sampler") {
    const std::vector<std::string> base = {"-q", "-n", "30", "--no-display-prompt", "-p", "HAMLET:"};
    const auto write = [&](std::vector<std::string> more) {
        more.insert(more.end(), base.begin(), base.end());
        return output(more);
    };
    const std::string greedy_text = write({"--temp", "0"}), sampled = write({"-s", "3"});
    CHECK(write({"--top-k", "1"}) == greedy_text);
    CHECK(write({"--top-p", "0"}) == greedy_text);
    CHECK(write({"--min-p", "1"}) == greedy_text);
    CHECK(write({"--temp=0", "--repeat-penalty", "1.5"}) != greedy_text);
    CHECK(write({"--temp=0", "--repeat-penalty", "1.5", "--repeat-last-n", "0"}) == greedy_text);
    CHECK(write({"--seed", "3"}) == sampled);
    CHECK(write({"-s", "4"}) != sampled);
    CHECK(write({"-s", "-1", "--temp", "5"}) != write({"-s", "-1", "--temp", "5"}));
    const std::string stop = greedy_text.substr(10, 4);
    CHECK(write({"--temp=0", "--stop", stop, "--stop", "never"}) ==
          greedy_text.substr(0, greedy_text.find(stop)) + "\n");
    // The end of the context ends a text that has no other end.
    const Outcome full = run_llm({"-n", "-1", "-c", "20", "--ignore-eos", "a"});
    CHECK(full.status == 0);
    CHECK(full.err.find("the context is full") != std::string::npos);
}

TEST_CASE("llm: what is wrong is said in one clear line, and the exit status is 1") {
    const struct {
        std::vector<std::string> args;
        std::vector<std::string> message;  // what the line must hold
    } cases[] = {
        {{"--bogus"}, {"--bogus", "unknown"}},
        {{"-Z", "1"}, {"-Z", "unknown"}},
        {{"-n"}, {"-n", "missing"}},
        {{"-n", "five"}, {"-n", "'five'", "whole"}},
        {{"-n", "5x"}, {"'5x'"}},
        {{"-n", " 5"}, {"' 5'"}},
        {{"-n", ""}, {"-n", "''"}},
        {{"-n", "-2"}, {"'-2'"}},
        {{"-n", "99999999999999"}, {"99999999999999"}},
        {{"-n", "1.5"}, {"'1.5'"}},
        {{"--temp", "nan"}, {"--temp", "nan"}},
        {{"--temp", "-1"}, {"--temp", "-1"}},
        {{"--top-p", "1.5"}, {"--top-p", "1.5"}},
        {{"--min-p", "x"}, {"--min-p", "'x'"}},
        {{"--repeat-penalty", "0"}, {"--repeat-penalty"}},
        {{"--top", "0"}, {"--top", "'0'"}},
        {{"-t", "-1"}, {"-t", "-1"}},
        {{"--dtype", "int4"}, {"--dtype", "int4", "q8_0"}},
        {{"--quiet=yes"}, {"--quiet", "no value"}},
        {{"one", "two"}, {"twice", "two"}},
        {{"-p", "a", "-f", "LICENSE"}, {"prompt", "--file"}},
        {{"-f", "no/such/file"}, {"no/such/file"}},
        {{"-f", "."}, {"."}},
        {{"-m", "no/such/model", "a"}, {"no/such/model"}},
        {{"-m", "LICENSE", "a"}, {"LICENSE", "not a model"}},
        {{"-m", "tests/data", "a"}, {"tests/data", "model.safetensors"}},
        {{"-c", "513", "a"}, {"context", "513", "512"}},
        {{"-c", "8", "-p", std::string(50, 'x')}, {"context of 8", "tokens"}},
        {{"--perplexity", "-p", ""}, {"--perplexity"}},
        {{"--chat", "--info"}, {"--info", "second task"}},
        {{"--perplexity", "--top", "2", "-p", "a b"}, {"--top", "second task"}},
        {{"--system", "Be.", "a"}, {"--system", "--chat"}},
        {{"--chat-template", "plain", "a"}, {"--chat-template", "--chat"}},
        {{"--parallel", "2", "a"}, {"--parallel", "--batch"}},
        {{"--profile", "step:3", "a"}, {"--profile", "trace:LAYER"}},
        {{"--profile", "step", "--top", "2", "a"}, {"--profile", "leave them out"}},
        {{"--load", "", "a"}, {"no such file"}},
    };
    for (const auto& [args, message] : cases) {
        const Outcome o = run_llm(args);
        CAPTURE(o.err);
        CHECK(o.status == 1);
        CHECK(o.out == "");
        CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
        CHECK(o.err.rfind("llm: ", 0) == 0);
        for (const std::string& part : message) {
            CAPTURE(part);
            CHECK(o.err.find(part) != std::string::npos);
        }
    }
    const Environment forced("LLM_SIMD", "quantum");
    CHECK(run_llm({"a"}).err.find("quantum") != std::string::npos);
}

TEST_CASE("llm: a conversation through a pipe") {
    const Outcome o = run_llm({"--chat", "-n", "10", "--temp", "0"}, "ROMEO:\n\n \nJULIET: \\\nI am\n");
    CHECK(o.status == 0);
    Session session(load(tiny("gemma3-tiny")));
    llm::Chat chat(session);
    std::string expected;
    for (const char* words : {"ROMEO:", "JULIET: \nI am"}) {
        chat.say(words, greedy(10), [&](std::string_view piece) {
            expected += piece;
            return true;
        });
        expected += "\n";
    }
    CHECK(o.out == expected);
    CHECK(o.err.find("generated: 20 tokens") != std::string::npos);
    // A turn that does not fit is an error, and the conversation goes on.
    const Outcome longer = run_llm({"--chat", "-n", "5", "-c", "64", "-q"}, "A\n" + std::string(900, 'x') + "\nB\n");
    CHECK(longer.status == 1);
    CHECK(longer.err.find("too long") != std::string::npos);
    CHECK(std::count(longer.err.begin(), longer.err.end(), '\n') == 1);
    std::string many;
    for (int i = 0; i < 12; ++i) many += "ROMEO: once more, JULIET.\n";
    const Outcome full = run_llm({"--chat", "-n", "10", "-c", "90", "-q", "--system", "A play."}, many);
    CHECK(full.status == 0);
    CHECK(full.err.find("oldest turns are forgotten") != std::string::npos);
    CHECK(full.out.find('\033') == std::string::npos);  // no terminal, no colours
    // The prompt is the first turn.
    CHECK(output({"--chat", "-n", "10", "--temp", "0", "-p", "ROMEO:"}, "JULIET: \\\nI am\n") == expected);
    CHECK(output({"--chat", "-n", "3", "--chat-template", "gemma", "hello"}) != "");
    CHECK(run_llm({"--chat", "-m", "models/gpt2-tiny", "--chat-template", "gemma", "a"}).status == 1);
    CHECK(run_llm({"--chat", "--chat-template", "llama", "a"}).err.find("'llama'") != std::string::npos);
}

TEST_CASE("llm: --save and --load go on with a text or a conversation, --lookup changes nothing") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "session").string();
    const std::string whole = output({"ROMEO:", "-n", "60", "--temp", "0"});
    std::string text = output({"ROMEO:", "-n", "20", "--temp", "0", "--save", file});
    text.pop_back();
    CHECK(text + output({"-n", "40", "--temp", "0", "--load", file, "--save", file}) == whole);
    CHECK(output({"ROMEO:", "-n", "60", "--temp", "0", "--lookup", "8"}) == whole);
    CHECK(output({"ROMEO:", "-n", "200", "-s", "3", "--lookup", "8"}) == output({"ROMEO:", "-n", "200", "-s", "3"}));
    const Outcome guessing = run_llm({"ROMEO:", "-n", "20", "--lookup", "8"});
    CHECK(guessing.err.find("guessed right: ") != std::string::npos);

    const std::vector<std::string> chat = {"--chat", "-n", "10", "--temp", "0"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.end(), chat.begin(), chat.end());
        return more;
    };
    const std::string both = output(chat, "ROMEO:\nJULIET:\n");
    const std::string first = output(with({"--save", file}), "ROMEO:\n");
    CHECK(first + output(with({"--load", file}), "JULIET:\n") == both);
    for (const char* task : {"--tokenize", "--perplexity", "--info"})
        CHECK(run_llm({task, "--load", file, "a"}).err.find("--load") != std::string::npos);
    CHECK(run_llm({"--load", file, "-m", "models/gpt2-tiny"}).status == 1);
    CHECK(run_llm({"a", "-n", "1", "--save", "no/such/directory/session"}).status == 1);
}

TEST_CASE("llm --profile: tables of steps, layers and operations") {
    const auto profile = [](const char* kind) {
        return run_llm({"-n", "4", "--ignore-eos", "--no-display-prompt", "--profile", kind, "ROMEO"});
    };
    const Outcome step = profile("step"), layer = profile("layer"), trace = profile("trace:5");
    for (const Outcome& o : {step, layer, trace}) {
        CHECK(o.status == 0);
        CHECK(o.err.find("3 steps of one token: p50 ") != std::string::npos);
    }
    CHECK(step.err.find("\n   4      1 ") != std::string::npos);
    CHECK(layer.err.find("\noutside ") != std::string::npos);
    CHECK(layer.err.find("\n5      ") != std::string::npos);
    for (const char* name : {"norm_rotate", "kv_store", "qk ", "softmax", "av ", "attn_out", "gelu", "down"})
        CHECK(trace.err.find(name) != std::string::npos);
    CHECK(profile("trace:6").err.find("there is no layer 6: choose 0 to 5") != std::string::npos);
    CHECK(profile("all").err.find("none of step, layer, trace") != std::string::npos);
}

TEST_CASE("llm: --logprobs writes a line of JSON for each token, --json one object for all") {
    const std::vector<std::string> call = {"-m", tiny("gemma3-tiny"), "-q", "-n", "12", "--temp", "0", "ROMEO:"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), call.begin(), call.end());
        return output(more);
    };
    const std::string text = with({"--no-display-prompt"});
    std::istringstream lines(with({"--logprobs", "2"}));
    std::string joined;
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        const JsonDocument document(line, "line");
        const Json& token = document.root();
        joined += token["text"].string();
        CHECK(token["bytes"].array().size() == token["text"].string().size());
        CHECK(token["logprob"].number() <= 0);
        REQUIRE(token["likeliest"].array().size() == 2);
        CHECK(token["likeliest"].array()[0]["id"].number() == token["id"].number());  // at temperature 0
    }
    CHECK(count == 12);
    CHECK(joined + "\n" == text);

    const JsonDocument document(with({"--json"}), "result");
    const Json& result = document.root();
    CHECK(result["prompt"].string() == "ROMEO:");
    CHECK(std::string(result["text"].string()) + "\n" == text);
    CHECK(result["end"].string() == "max_tokens");
    CHECK(result["generated"].number() == 12);
    CHECK(result["prompt_tokens"].number() == 2);
    CHECK(result["generate_seconds"].number() > 0);
    CHECK(result["tokens"].array().size() == 12);
    CHECK(result["tokens"].array()[0]["likeliest"].is_null());
    const JsonDocument stopped(with({"--json", "--stop", joined.substr(3, 4)}), "result");
    CHECK(stopped.root()["end"].string() == "stop_text");
    CHECK(stopped.root()["text"].string() == joined.substr(0, 3));
    for (const char* task : {"--chat", "--info", "--tokenize"})
        CHECK(run_llm({"-m", tiny("gemma3-tiny"), "--json", task}).status == 1);
}

TEST_CASE(
    "llm --batch: a line of JSON for each prompt, in their order; a bad line names its number and ends no other") {
    const std::vector<std::string> base = {"-m", tiny("gemma3-tiny"), "-n", "12", "-s", "7"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), base.begin(), base.end());
        return more;
    };
    const std::string input =
        "ROMEO:\r\n\n"
        R"({"prompt": "KING \u0041", "n_predict": 5, "seed": 3, "stop": ["x", "yz"], "temp": 0.5})"
        "\n{bad\n"
        R"({"prompt": "A", "other": 1})"
        "\n"
        R"({"prompt": "A", "top_p": 7})"
        "\n" +
        std::string(3000, 'x') + "\nJULIET:";
    for (const char* parallel : {"1", "3", "0"}) {
        const Outcome o = run_llm(with({"--batch", "-", "--parallel", parallel}), input);
        CHECK(o.status == 1);
        std::istringstream lines(o.out);
        std::vector<std::string> texts;
        std::string numbers;
        for (std::string line; std::getline(lines, line);) {
            const JsonDocument document(line, "line");
            const Json& one = document.root();
            numbers += std::to_string(int(one["number"].number())) + (one.find("error") ? "! " : " ");
            if (one.find("error")) continue;
            texts.emplace_back(one["text"].string());
            CHECK(one["end"].string() == "max_tokens");
            CHECK(one["tokens"].array().size() == one["generated"].number());
        }
        CHECK(numbers == "1 3 4! 5! 6! 7! 8 ");
        REQUIRE(texts.size() == 3);
        CHECK(texts[0] + "\n" == output(with({"-p", "ROMEO:", "--no-display-prompt", "-q"})));
        CHECK(texts[1] + "\n" == output({"-m", tiny("gemma3-tiny"), "-p", "KING A", "-n", "5", "-s", "3", "--temp",
                                         "0.5", "--no-display-prompt", "-q"}));
        CHECK(texts[2] + "\n" == output({"-m", tiny("gemma3-tiny"), "-p", "JULIET:", "-n", "12", "-s", "14",
                                         "--no-display-prompt", "-q"}));
        for (const char* part :
             {"line 4: ", "line 5: unknown member \"other\"", "line 6: ", "top_p", "line 7: ", "context"})
            CHECK(o.err.find(part) != std::string::npos);
        CHECK(o.err.find("texts: 3; ") != std::string::npos);
    }
    const JsonDocument detailed(output(with({"--batch", "-", "--logprobs", "2", "-q"}), "ROMEO:"), "line");
    CHECK(detailed.root()["tokens"].array()[0]["likeliest"].array().size() == 2);
    CHECK(output(with({"--batch", "-"}), "\n \n") == "");
    const std::string bad = run_llm(with({"--batch", "-"}), R"({"prompt": "A", "stop": [1]})").err;
    CHECK(bad.find("stop: a value should be a string\n") != std::string::npos);
    const std::string none = run_llm(with({"--batch", "-"}), R"({"prompt": "A", "stop": null})").err;
    CHECK(none.find("stop: it is no text and no list\n") != std::string::npos);
    const std::vector<std::vector<std::string>> refused = {
        {"--batch", "-", "-p", "x"},           {"--batch", "-", "--chat"},
        {"--batch", "-", "--lookup", "3"},     {"--batch", "-", "--save", "s"},
        {"--batch", "-", "--parallel", "257"}, {"--batch", "no/such/file"}};
    for (const auto& args : refused) CHECK(run_llm(with(args), "x").status == 1);
}

}  // namespace
}  // namespace tests
