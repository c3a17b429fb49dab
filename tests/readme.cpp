// What the README and examples/ show: programs that compile and run; make install.

#include "programs.h"
#include "support.h"

namespace tests {
namespace {

// Each example is compiled with another set of the header's defines, and run.
TEST_CASE("the examples run, and the header's defines do what they say" * not_sanitized()) {
    const TemporaryDirectory directory;
    const auto run_it = [&](const std::string& name, const std::vector<std::string>& args,
                            const std::string& input = "") {
        write_file(directory.path / "in", input);
        std::string command = "cd " + quoted(repository().string()) + " && " + quoted((directory.path / name).string());
        for (const std::string& arg : args) command += " " + quoted(arg);
        command += " <" + quoted((directory.path / "in").string()) + " >" + quoted((directory.path / "out").string());
        CHECK(std::system((command + " 2>&1").c_str()) == 0);
        return read_file(directory.path / "out");
    };
    // Two .cpp files with a copy of their own each, which would clash if the linker saw them
    const std::string second = (directory.path / "second.cpp").string();
    write_file(second, "#include \"llm.h\"\nint second() { return llm::Sampler().sample(nullptr, 1); }\n");
    CHECK(compile(directory.path / "hello", {"examples/hello.cpp", second}, "-DLLM_STATIC -pthread") == "");
    const std::string hello = run_it("hello", {});
    Session session(load(tiny("gemma3-tiny")));
    llm::GenerateOptions options;
    options.max_tokens = 60;
    // Built without optimization, sums round otherwise here and there, and a sampled text may part from its twin later on.
    CHECK(hello.size() > 80);
    CHECK(hello.substr(0, 40) == generated(session, "ROMEO:", options).substr(0, 40));

    const std::string threadless = (directory.path / "threadless.cpp").string();
    write_file(threadless,
               "#define LLM_IMPLEMENTATION\n#include \"llm.h\"\n"
               "#if defined(_GLIBCXX_THREAD) || defined(_LIBCPP_THREAD)\n#error threads\n#endif\n");
    CHECK(compile(directory.path / "threadless.o", {threadless}, "-DLLM_NO_THREADS -c") == "");
    CHECK(compile(directory.path / "threads.o", {threadless}, "-fsyntax-only").find("threads") != std::string::npos);
    CHECK(compile(directory.path / "chat", {"examples/chat.cpp"}, "-DLLM_NO_THREADS") == "");
    const std::string chat = run_it("chat", {tiny("gpt2-tiny")}, "ROMEO:\nJULIET:\n");
    CHECK(std::count(chat.begin(), chat.end(), '>') == 3);
    CHECK(chat.size() > 100);
    CHECK(compile(directory.path / "embeddings", {"examples/embeddings.cpp"}, "-DLLM_NO_SIMD -pthread") == "");
    const auto alike = [&](const char* a, const char* b) {
        return std::stof(run_it("embeddings", {tiny("gemma3-tiny"), a, b}));
    };
    CHECK(alike("my lord the king", "my lord the king") > 0.9999f);
    CHECK(alike("my lord the king", "my lord the queen") > alike("my lord the king", "1623\n\n42 # <tag>"));

    CHECK(compile(directory.path / "choice", {"examples/choice.cpp"}, "-pthread") == "");
    std::istringstream lines(run_it("choice", {tiny("gemma3-tiny"), "To be, or not to", " be", " xylophone", " be"}));
    double best, worst, again;
    std::string word;
    lines >> best >> word >> worst >> word >> again;
    CHECK(best > worst);
    CHECK(best == again);
    CHECK(best < 0);
}

TEST_CASE("make install puts the program and the header under PREFIX, make uninstall takes them away") {
    const TemporaryDirectory directory;
    const auto make = [&](const std::string& target) {
        const std::string beside = fs::absolute(program()).parent_path().string();
        return std::system(("cd " + quoted(repository().string()) + " && make -s " + target +
                            " BUILD=" + quoted(beside) + " DESTDIR=" + quoted(directory.path.string()) +
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

TEST_CASE("the README's program compiles as printed, and writes" * not_sanitized()) {
    const std::string readme = read_file(repository() / "README.md"), fence = "```cpp\n";
    const std::size_t begin = readme.find(fence), end = readme.find("```", begin + fence.size());
    REQUIRE(end != std::string::npos);
    const std::string source = readme.substr(begin + fence.size(), end - begin - fence.size());
    CHECK(std::count(source.begin(), source.end(), '\n') <= 24);
    const TemporaryDirectory directory;
    write_file(directory.path / "hello.cpp", source);
#ifdef __clang__
    const std::string compiler = environment("CXX", "clang++");
#else
    const std::string compiler = environment("CXX", "g++");
#endif
    const std::string hello = (directory.path / "hello").string(), log = hello + ".log";
    const std::string command = compiler + " -std=c++17 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I" +
                                quoted(repository().string()) + " " + quoted(hello + ".cpp") + " -pthread -o " +
                                quoted(hello) + " >" + quoted(log) + " 2>&1";
    REQUIRE_MESSAGE(std::system(command.c_str()) == 0, read_file(log));
    const auto run_it = [&](const std::string& model) {
        return std::system((quoted(hello) + " " + quoted(model) + " >" + quoted(log) + " 2>&1").c_str());
    };
    CHECK(run_it(tiny("gemma3-tiny")) == 0);
    CHECK(read_file(log).size() > 60);
    CHECK(run_it("no/such/model") != 0);
    CHECK(read_file(log).find("no/such/model") != std::string::npos);
}

}  // namespace
}  // namespace tests
