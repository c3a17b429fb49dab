// What the README and examples/ show: programs that compile without a warning and run; make install. Most are compiled with
// another set of the header's defines. The commands of docs/ are in first_evening.cpp.

#include "programs.h"
#include "support.h"

namespace tests {
namespace {

// A program that was compiled; what it prints, errors too.
struct Program {
    TemporaryDirectory directory;
    fs::path path = directory.path / "program";
    int status = 0;

    explicit Program(const std::string& example) { CHECK(compile_example(path, example) == ""); }
    Program(std::vector<std::string> sources, const std::string& flags) { CHECK(compile(path, sources, flags) == ""); }
    std::string run(const std::vector<std::string>& args, const std::string& input = "") {
        write_file(directory.path / "in", input);
        std::string command = "cd " + quoted(repository().string()) + " && " + quoted(path.string());
        for (const std::string& arg : args) command += " " + quoted(arg);
        command += " <" + quoted((directory.path / "in").string()) + " >" + quoted((directory.path / "out").string());
        status = std::system((command + " 2>&1").c_str());
        return read_file(directory.path / "out");
    }
};

std::string readme_between(const std::string& before, const std::string& after) {
    const std::string readme = read_file(repository() / "README.md");
    REQUIRE(readme.find(before) != std::string::npos);
    const std::size_t begin = readme.find(before) + before.size(), end = readme.find(after, begin);
    REQUIRE(end != std::string::npos);
    return readme.substr(begin, end - begin);
}

TEST_CASE("the README is a page") {
    const std::string readme = read_file(repository() / "README.md");
    CHECK(std::count(readme.begin(), readme.end(), '\n') <= 200);
}

TEST_CASE("make run writes the README's text, on every machine") {
    const std::string text = readme_between("$ make run\n", "...\n");
    CHECK(text.size() > 200);
    CHECK(output({"-m", tiny("gemma3-tiny"), "-p", "ROMEO:"}).substr(0, text.size()) == text);
}

TEST_CASE("make gemma writes the README's text" * needs(kRealGemma)) {
    const std::string makefile = read_file(repository() / "Makefile"), flags = "-m $(GEMMA) ";
    const std::size_t at = makefile.find(flags);
    REQUIRE(at != std::string::npos);
    const TemporaryDirectory directory;
    const std::string out = (directory.path / "out").string();
    const std::string rest = makefile.substr(at + flags.size(), makefile.find('\n', at) - at - flags.size());
    CHECK(std::system((quoted(built("llm")) + " -m " + quoted(real_model(kRealGemma).string()) + " " + rest +
                       " 2>/dev/null >" + quoted(out))
                          .c_str()) == 0);
    const auto in_one_line = [](std::string text) {
        std::replace(text.begin(), text.end(), '\n', ' ');
        return text;
    };
    CHECK(in_one_line(read_file(out)) == in_one_line(readme_between("$ make gemma\n", "```")));
}

// Each code of the table's second column is a statement with these names.
TEST_CASE("the README's lines of the API compile" * not_sanitized()) {
    std::istringstream rows(readme_between("## What the API offers\n", "\n## "));
    std::string source = "#include \"llm.h\"\n#include <cmath>\n#include <cstdio>\nusing namespace llm;\n";
    int lines = 0;
    for (std::string row; std::getline(rows, row);) {
        if (row.rfind("| ", 0) != 0) continue;
        for (std::size_t at = row.find(" | "), open, close; (open = row.find('`', at)) != std::string::npos;
             at = close) {
            close = row.find('`', open + 1) + 1;
            REQUIRE(close > open);
            source +=
                "void f" + std::to_string(lines++) +
                "(Model& model, Session& session, Session& other, Session& a, Session& b, GenerateOptions& options, "
                "Sampler& sampler, std::vector<int>& tokens, std::vector<std::string>& prompts, std::string& gguf, "
                "OnText& on_text, double& sum, bool& retry) {{ " +
                row.substr(open + 1, close - open - 2) + "; }}\n";
        }
    }
    CHECK(lines >= 18);
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "lines.cpp").string();
    write_file(file, source);
    CHECK(compile(directory.path / "none", {file}, "-fsyntax-only -w") == "");
}

TEST_CASE("the README's program compiles as printed, and writes" * not_sanitized()) {
    const std::string source = readme_between("```cpp\n", "```");
    CHECK(std::count(source.begin(), source.end(), '\n') <= 24);
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "hello.cpp").string();
    write_file(file, source);
    Program hello({file}, "-pthread");
    CHECK(hello.run({tiny("gemma3-tiny")}).size() > 60);
    CHECK(hello.status == 0);
    CHECK(hello.run({"no/such/model"}).find("no/such/model") != std::string::npos);
    CHECK(hello.status != 0);
}

TEST_CASE("examples/hello writes, in a program of two files with a copy of llm.h each" * not_sanitized()) {
    const TemporaryDirectory directory;  // the copies would clash if the linker saw them
    const std::string second = (directory.path / "second.cpp").string();
    write_file(second,
               "#define LLM_NO_SIMD\n#include \"llm.h\"\nint second() { return llm::Sampler().sample(nullptr, 1); }\n");
    Program hello({"examples/hello.cpp", second}, "-DLLM_STATIC -pthread");
    const std::string text = hello.run({});
    CHECK(hello.status == 0);
    Session session(load(tiny("gemma3-tiny")));
    llm::GenerateOptions options;
    options.max_tokens = 60;
    // Built with other flags, sums round otherwise here and there, and a sampled text may part from its twin later on.
    CHECK(text.size() > 80);
    CHECK(text.substr(0, 40) == generated(session, "ROMEO:", options).substr(0, 40));
}

TEST_CASE("examples/chat answers, without threads" * not_sanitized()) {
    const TemporaryDirectory directory;
    const std::string threadless = (directory.path / "threadless.cpp").string(),
                      out = (directory.path / "none").string();
    write_file(threadless,
               "#define LLM_IMPLEMENTATION\n#include \"llm.h\"\n"
               "#if defined(_GLIBCXX_THREAD) || defined(_LIBCPP_THREAD)\n#error threads\n#endif\n");
    CHECK(compile(out, {threadless}, "-DLLM_NO_THREADS -fsyntax-only") == "");
    CHECK(compile(out, {threadless}, "-fsyntax-only").find("threads") != std::string::npos);
    Program chat({"examples/chat.cpp"}, "-DLLM_NO_THREADS");
    const std::string text = chat.run({tiny("gpt2-tiny")}, "ROMEO:\nJULIET:\n");
    CHECK(chat.status == 0);
    CHECK(std::count(text.begin(), text.end(), '>') == 3);
    CHECK(text.size() > 100);
}

TEST_CASE("examples/embeddings finds alike what is alike, without vector kernels" * not_sanitized()) {
    Program embeddings({"examples/embeddings.cpp"}, "-DLLM_NO_SIMD -pthread");
    const auto alike = [&](const char* a, const char* b) {
        return std::stof(embeddings.run({tiny("gemma3-tiny"), a, b}));
    };
    CHECK(alike("my lord the king", "my lord the king") > 0.9999f);
    CHECK(alike("my lord the king", "my lord the queen") > alike("my lord the king", "1623\n\n42 # <tag>"));
}

TEST_CASE("examples/choice tells the likelier answer, without either" * not_sanitized()) {
    Program choice({"examples/choice.cpp"}, "-DLLM_NO_SIMD -DLLM_NO_THREADS");
    std::istringstream lines(choice.run({tiny("gemma3-tiny"), "To be, or not to", " be", " xylophone", " be"}));
    double best, worst, again;
    std::string word;
    lines >> best >> word >> worst >> word >> again;
    CHECK(best > worst);
    CHECK(best == again);
    CHECK(best < 0);
}

TEST_CASE("examples/classify judges texts together as one at a time" * not_sanitized()) {
    Program classify("classify");
    const std::string text = classify.run({tiny("gemma3-tiny"), "I laughed a lot.", "Never again."});
    CHECK(classify.status == 0);
    CHECK(text.find("  I laughed a lot.\n") != std::string::npos);
    CHECK(text.find("3 texts: ") != std::string::npos);
}

TEST_CASE("make install puts the program and the header under PREFIX, make uninstall takes them away") {
    const TemporaryDirectory directory;
    const auto make = [&](const std::string& target) {
        const std::string build = fs::path(built("llm")).parent_path().string();
        return std::system(("cd " + quoted(repository().string()) + " && make -s " + target +
                            " BUILD=" + quoted(build) + " DESTDIR=" + quoted(directory.path.string()) +
                            " PREFIX=/opt/x >/dev/null 2>&1")
                               .c_str());
    };
    CHECK(make("install") == 0);
    const fs::path prefix = directory.path / "opt" / "x";
    CHECK(read_file(prefix / "include" / "llm.h") == read_file(repository() / "llm.h"));
    CHECK(std::system((quoted((prefix / "bin" / "llm").string()) + " --version >/dev/null").c_str()) == 0);
    CHECK(make("uninstall") == 0);
    CHECK(!fs::exists(prefix / "bin" / "llm"));
    CHECK(!fs::exists(prefix / "include" / "llm.h"));
}

}  // namespace
}  // namespace tests
