// bindings/: the library of `make capi`, which shows nothing but its functions; a program in C and one in Python write with
// it what llm.h writes.

#include "../bindings/llm_c.h"
#include "programs.h"

namespace tests {
namespace {

bool has_python() { return std::system("python3 -c 'import ctypes' >/dev/null 2>&1") == 0; }

// make capi, where the tests are built; once.
fs::path library() {
    static const fs::path directory = fs::path(built("llm")).parent_path();
    static const int status = std::system(
        ("make -s -C " + quoted(repository().string()) + " capi BUILD=" + quoted(directory.string()) + " >&2").c_str());
    REQUIRE(status == 0);
#ifdef __APPLE__
    return directory / "libllm.dylib";
#else
    return directory / "libllm.so";
#endif
}

std::string output_of(const std::string& command, int wanted_status = 0) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path / "out";
    const std::string all = "cd " + quoted(repository().string()) + " && " + command + " >" + quoted(out.string());
    const int status = std::system((all + " 2>&1").c_str());
    const std::string text = read_file(out);
    CAPTURE(text);
    CHECK((WIFEXITED(status) ? WEXITSTATUS(status) : -1) == wanted_status);
    return text;
}

// What the programs of tests/bindings/ print: a line for each thing they try.
std::string expected() {
    const Model model = load(tiny("gemma3-tiny"));
    std::string text;
    const auto line = [&](const std::string& name, const std::string& value) { text += name + ": " + value + "\n"; };
    const auto escaped = [](const std::string& t) { return detail::replace_all(t, "\n", "|"); };
    const std::vector<int> ids = model.tokenizer().encode("To be, or not");
    std::string list;
    for (const int id : ids) list += (list.empty() ? "" : " ") + std::to_string(id);
    line("ids", list);
    line("text", model.tokenizer().decode(ids));

    llm::GenerateOptions options;
    options.max_tokens = 40;
    options.sampling.seed = 7;
    options.stop = {"ZZZ", "QQQ"};
    Session session(model);
    line("generate", escaped(generated(session, "ROMEO:", options)));
    line("position", std::to_string(session.position()));
    options.sampling.temperature = 0;
    line("goes on", escaped(generated(session, "", options)));

    session.rewind(0);
    const std::vector<std::string> prompts = {"ROMEO:", "JULIET:", "To be"};
    options.sampling.temperature = 0.8f;
    for (const llm::Completion& one : generate_many(session, prompts, options)) line("many", escaped(one.text));

    llm::Chat chat(session, "Words.", llm::Chat::Template::plain);
    std::string answer;
    chat.say("Who is there?\n", options, [&](std::string_view piece) {
        answer += piece;
        return true;
    });
    line("chat", escaped(answer));

    session.rewind(0);
    char score[40];
    std::snprintf(score, sizeof score, "%.4f", llm::score(session, "To be, or not to be"));
    line("score", score);
    for (const llm::Logit& one : session.best(3)) {
        const double p = llm::log_probability(session.logits(), model.config().vocab_size, one.id);
        std::snprintf(score, sizeof score, "%d %.4f", one.id, p);
        line("likeliest", score);
    }
    return text;
}

TEST_CASE("make capi builds a library that shows the functions of llm_c.h and nothing else" * not_sanitized()) {
    const std::string header = read_file(repository() / "bindings" / "llm_c.h");
    std::istringstream words(output_of("nm -D --defined-only " + quoted(library().string())));
    std::set<std::string> shown, declared;
    for (std::string address, type, name; words >> address >> type >> name;) shown.insert(name);
    for (std::size_t at = 0; (at = header.find("\nLLM_C_API ", at)) != std::string::npos; ++at) {
        const std::string before = header.substr(at, header.find('(', at) - at);
        declared.insert(before.substr(before.find_last_of(" *") + 1));
    }
    CHECK(declared.count("llm_generate_many") == 1);
    CHECK(declared.size() == 19);
    CHECK(shown == declared);
}

TEST_CASE("a program in C writes what llm.h writes, and learns what went wrong" * not_sanitized()) {
    const TemporaryDirectory directory;
    const std::string program = (directory.path / "program").string(), from = library().parent_path().string();
    CHECK(output_of("cc -std=c99 -Wall -Wextra -Wpedantic -Werror -Ibindings tests/bindings/program.c -o " +
                    quoted(program) + " -L" + quoted(from) + " -lllm -Wl,-rpath," + quoted(from)) == "");
    CHECK(output_of(quoted(program) + " models/gemma3-tiny") == expected());
    CHECK(output_of(quoted(program) + " no/such/model", 1).find("no such file: no/such/model") == 0);
}

TEST_CASE("llm.py writes what llm.h writes, raises what went wrong, and heeds Ctrl-C" *
          doctest::skip(!has_python() || LLM_ASAN || LLM_TSAN)) {
    const std::string script =
        "LLM_LIBRARY=" + quoted(library().string()) + " PYTHONPATH=bindings python3 tests/bindings/program.py ";
    CHECK(output_of(script + "models/gemma3-tiny") == expected());
    CHECK(output_of(script + "no/such/model", 1).find("no such file: no/such/model") != std::string::npos);
    CHECK(output_of(script + "models/gemma3-tiny interrupt") == "loading, prompt, text, texts: interrupted\n");
    const std::string py = read_file(repository() / "bindings" / "llm.py");
    CHECK(std::count(py.begin(), py.end(), '\n') < 100);
}

}  // namespace
}  // namespace tests
