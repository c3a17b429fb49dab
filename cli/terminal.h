// What build/llm reads and writes: results go to standard output, all else to standard error. On a terminal there are
// colours, progress bars and the questions of a conversation; through a pipe the bytes alone.

#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "../llm.h"
#include "flags.h"

namespace cli {

inline bool closed_is_error = false;  // something else is still to be done when nobody reads any more

inline void print(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
    if (errno == EPIPE && !closed_is_error) std::_Exit(0);
    throw llm::Error(std::string("cannot write to standard output: ") + std::strerror(errno), llm::Error::Kind::system);
}

inline bool is_terminal(int descriptor) {
    const char* const kind = std::getenv("TERM");
    return isatty(descriptor) != 0 && !(kind && std::strcmp(kind, "dumb") == 0);
}
inline bool on_terminal() { return is_terminal(STDERR_FILENO); }
inline const char* clear_line() { return on_terminal() ? "\r\033[K" : ""; }

// What the user says is green, errors are red: on a terminal, unless NO_COLOR is set (no-color.org).
inline std::string colored(int descriptor, const char* color, const std::string& text) {
    const char* const no_color = std::getenv("NO_COLOR");
    if (text.empty() || !is_terminal(descriptor) || (no_color && *no_color)) return text;
    return format("\033[%sm", color) + text + "\033[0m";
}
inline std::string users(const std::string& text) { return colored(STDOUT_FILENO, "32", text); }
inline void print_error(const char* message) {
    std::fprintf(stderr, "%s%s %s\n", clear_line(), colored(STDERR_FILENO, "31", "llm:").c_str(), message);
}

inline void show_progress(float done, const char* what) {
    const std::string bar(static_cast<std::size_t>(30 * std::clamp(done, 0.0f, 1.0f)), '#');
    std::fprintf(stderr, "\r[%-30s] %s\033[K%s", bar.c_str(), what, done >= 1 ? clear_line() : "");
}

// Without the byte order mark that programs of Windows put before a text.
inline std::string read_file(const std::string& path) {
    const auto check = [&](bool good) {
        if (!good) throw llm::Error("cannot read the prompt: " + path + ": " + std::strerror(errno));
    };
    std::ostringstream text;
    if (path == "-") {
        char part[65536];
        while (!std::feof(stdin) && !std::ferror(stdin))  // no further on a terminal, which would ask once more
            text.write(part, std::streamsize(std::fread(part, 1, sizeof part, stdin)));
        check(std::ferror(stdin) == 0);
    } else {
        std::ifstream file(llm::detail::to_path(path), std::ios::binary);
        if (file.peek() != EOF) text << file.rdbuf();
        check(!file.fail() || file.eof());
    }
    const std::string all = text.str();
    return all.substr(all.compare(0, 3, "\xEF\xBB\xBF") == 0 ? 3 : 0);
}

// Lines up to the first that does not end in a backslash. Nothing at the end of the input.
inline std::optional<std::string> read_message(bool ask) {
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

}  // namespace cli
