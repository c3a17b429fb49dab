// Runs the programs that were built beside the tests, compiles others, and calls functions in a process of their own.

#ifndef LLM_TESTS_PROGRAMS_H
#define LLM_TESTS_PROGRAMS_H

#include "support.h"

#include <sys/wait.h>

namespace tests {

struct Outcome {
    int status;  // -1: ended by a signal
    std::string out, err;
};

inline std::string quoted(const std::string& text) { return "'" + detail::replace_all(text, "'", "'\\''") + "'"; }

// A program that was built beside the tests.
inline std::string built(const std::string& name) {
    const fs::path here = program().parent_path();
    const fs::path path = (fs::exists(here / name) ? here : here.parent_path()) / name;
    REQUIRE_MESSAGE(fs::exists(path), path.string() << " is missing: run make first");
    return path.string();
}

// Runs it in the repository's directory.
inline Outcome run(const std::string& name, const std::vector<std::string>& args, const std::string& input = "") {
    const TemporaryDirectory directory;
    const auto file = [&](const char* stream) { return (directory.path / stream).string(); };
    write_file(file("in"), input);
    std::string command = "cd " + quoted(repository().string()) + " && " + quoted(built(name));
    for (const std::string& arg : args) command += " " + quoted(arg);
    command += " <" + quoted(file("in")) + " >" + quoted(file("out")) + " 2>" + quoted(file("err"));
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(file("out")), read_file(file("err"))};
}
inline Outcome run_llm(const std::vector<std::string>& args, const std::string& input = "") {
    return run("llm", args, input);
}

// The standard output of a run that succeeds.
inline std::string output(std::vector<std::string> args, const std::string& input = "") {
    const Outcome o = run_llm(args, input);
    CAPTURE(o.err);
    CHECK(o.status == 0);
    return o.out;
}

inline std::vector<std::vector<std::string>> table(const std::string& text) {  // lines of cells, tab-separated
    std::vector<std::vector<std::string>> rows;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        rows.emplace_back();
        std::istringstream cells(line);
        for (std::string cell; std::getline(cells, cell, '\t');) rows.back().push_back(cell);
    }
    return rows;
}

// Compiles a program of sources in the repository; returns the error messages.
inline std::string compile(const fs::path& result, const std::vector<std::string>& sources, const std::string& flags) {
#ifdef __clang__
    const std::string compiler = environment("CXX", "clang++");
#else
    const std::string compiler = environment("CXX", "g++");
#endif
    const std::string log = result.string() + ".log";
    std::string command = "cd " + quoted(repository().string()) + " && " + compiler +
                          " -std=c++17 -O0 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I. " + flags;
    for (const std::string& source : sources) command += " " + quoted(source);
    command += " -o " + quoted(result.string()) + " >" + quoted(log) + " 2>&1";
    return std::system(command.c_str()) == 0 ? "" : "failed: " + read_file(log);
}

// Compiles an example against one object of the header's functions, which all of these share: their own inclusion of it gets
// the declarations only.
inline std::string compile_example(const fs::path& result, const std::string& name) {
    static const TemporaryDirectory directory;
    static const std::string object = (directory.path / "llm.o").string();
    if (!fs::exists(object)) {
        write_file(directory.path / "llm.cpp", "#define LLM_IMPLEMENTATION\n#include \"llm.h\"\n");
        const std::string errors = compile(object, {(directory.path / "llm.cpp").string()}, "-O1 -c -pthread");
        if (!errors.empty()) return errors;
    }
    return compile(result, {"examples/" + name + ".cpp", object}, "-DLLM_IMPLEMENTATION_INCLUDED -pthread");
}

// Runs the call in a process of its own; what it returns comes back.
template <class Call> int in_child(const Call& call) {
    const pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) {
        int code = 100;
        try {
            code = call();
        } catch (...) {
        }
        _exit(code);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace tests

#endif
