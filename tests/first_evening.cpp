// The commands that docs/ show print what is printed there, on every machine. A block between plain fences holds commands,
// "$ COMMAND", each with all that it writes to standard output; `...` stands for any text. Other blocks (```sh, ```console)
// are not run.

#include "programs.h"
#include "support.h"

#include <algorithm>
#include <map>

namespace tests {
namespace {

struct Shown {
    std::string heading, command, output;
};

std::string without_trailing_space(const std::string& text) {
    std::istringstream lines(text);
    std::string out;
    for (std::string line; std::getline(lines, line);) out += line.substr(0, line.find_last_not_of(" \r") + 1) + "\n";
    return out;
}

std::vector<Shown> commands_of(const std::string& document) {
    std::istringstream lines(read_file(repository() / "docs" / document));
    std::vector<Shown> all;
    std::string heading;
    bool fenced = false, run = false, begun = false;
    for (std::string line; std::getline(lines, line);) {
        if (line.rfind("```", 0) == 0) {
            fenced = !fenced;
            run = fenced && line == "```";
            begun = false;
        } else if (!fenced && line.rfind("## ", 0) == 0) {
            heading = line.substr(3);
        } else if (run && line.rfind("$ ", 0) == 0) {
            all.push_back({heading, line.substr(2), ""});
            begun = true;
        } else if (begun) {
            all.back().output += line + "\n";
        }
    }
    return all;
}

// Whether the text is the pattern, in which "..." stands for anything.
bool matches(const std::string& text, const std::string& pattern) {
    std::size_t at = 0, begin = 0;
    for (std::size_t dots; (dots = pattern.find("...", begin)) != std::string::npos; begin = dots + 3) {
        const std::string part = pattern.substr(begin, dots - begin);
        const std::size_t found = text.find(part, at);
        if (found == std::string::npos || (begin == 0 && found != 0)) return false;
        at = found + part.size();
    }
    const std::string last = pattern.substr(begin);
    if (begin == 0) return text == last;
    return text.size() >= at + last.size() && text.compare(text.size() - last.size(), last.size(), last) == 0;
}

TEST_CASE("what stands for any text in a document matches any text, and nothing else does") {
    CHECK(matches("abc", "abc"));
    CHECK(matches("abc", "a...c"));
    CHECK(matches("abcabd", "a...b...d"));
    CHECK(!matches("abc", "ab"));
    CHECK(!matches("abc", "b...c"));
    CHECK(!matches("abc", "a...b"));
    CHECK(!matches("ab", "ab...b"));
}

class Documents {
  public:
    // Runs a command of a document; examples are compiled for it.
    void check(const Shown& shown) {
        CAPTURE(shown.command);
        std::string command = shown.command;
        for (const char* program : {"llm", "bench"})
            command = detail::replace_all(command, std::string("build/") + program, quoted(built(program)));
        for (std::size_t at; (at = command.find("build/examples/")) != std::string::npos;) {
            const std::size_t name = at + std::string("build/examples/").size();
            const std::size_t end = std::min(command.find(' ', name), command.size());
            command.replace(at, end - at, quoted(example(command.substr(name, end - name)).string()));
        }
        write_file(directory_.path / "command", command + "\n");
        const std::string out = (directory_.path / "out").string();
        CHECK(std::system(("cd " + quoted(repository().string()) + " && sh " +
                           quoted((directory_.path / "command").string()) + " </dev/null >" + quoted(out) + " 2>" +
                           quoted((directory_.path / "err").string()))
                              .c_str()) == 0);
        const std::string printed = without_trailing_space(read_file(out));
        CHECK_MESSAGE(matches(printed, without_trailing_space(shown.output)), "it prints:\n" << printed);
    }
  private:
    const fs::path& example(const std::string& name) {
        fs::path& path = examples_[name];
        if (path.empty()) {
            path = directory_.path / name;
            REQUIRE(compile_example(path, name) == "");
        }
        return path;
    }
    TemporaryDirectory directory_;
    std::map<std::string, fs::path> examples_;
};

bool uses_example(const Shown& shown) { return shown.command.find("build/examples/") != std::string::npos; }

TEST_CASE("docs/first-evening.md has ten stops, each with a command and another one that answers its question") {
    std::map<std::string, int> stops;
    for (const Shown& shown : commands_of("first-evening.md")) {
        CHECK(!shown.output.empty());
        ++stops[shown.heading.substr(0, shown.heading.find('.'))];
    }
    CHECK(stops.size() == 10);
    for (int stop = 1; stop <= 10; ++stop) CHECK(stops[std::to_string(stop)] >= 2);
}

TEST_CASE("docs/first-evening.md: the commands of build/llm and build/bench print what is printed there") {
    Documents documents;
    for (const Shown& shown : commands_of("first-evening.md"))
        if (!uses_example(shown)) documents.check(shown);
}

TEST_CASE("docs/first-evening.md: the examples print what is printed there" * not_sanitized()) {
    Documents documents;
    for (const Shown& shown : commands_of("first-evening.md"))
        if (uses_example(shown)) documents.check(shown);
}

TEST_CASE("docs/first-evening.md: the functions that it names to be read are in llm.h") {
    const std::string text = read_file(repository() / "docs" / "first-evening.md");
    const std::string header = read_file(repository() / "llm.h");
    const auto is_there = [&](const std::string& name) {
        for (const std::string& way : {"struct " + name + " ", " " + name + " {", " " + name + "(", " " + name + "\n"})
            if (header.find(way) != std::string::npos) return true;
        return false;
    };
    int names = 0;
    for (std::size_t at = 0; (at = text.find("\n\nRead ", at)) != std::string::npos; ++at) {
        const std::string sentence = text.substr(at, text.find(". ", at) - at);
        for (std::size_t open = 0, close; (open = sentence.find('`', open)) != std::string::npos; open = close + 1) {
            close = sentence.find('`', open + 1);
            std::string name = sentence.substr(open + 1, close - open - 1);
            if (name.rfind("struct ", 0) == 0) name.erase(0, 7);
            for (std::size_t scope; (scope = name.find("::")) != std::string::npos; name.erase(0, scope + 2)) {
                CAPTURE(name);
                CHECK(is_there(name.substr(0, scope)));
            }
            CAPTURE(name);
            CHECK(is_there(name));
            ++names;
        }
    }
    CHECK(names >= 10);
}

TEST_CASE("docs/command-line.md: commands print what is printed there") {
    const std::vector<Shown> all = commands_of("command-line.md");
    CHECK(all.size() >= 2);
    Documents documents;
    for (const Shown& shown : all) documents.check(shown);
}

}  // namespace
}  // namespace tests
