// The command lines of build/llm and build/bench. Each program has one table of flags, from which come its parser and its
// --help: a flag's setter checks the value and puts it where the program's options hold it.

#pragma once

#include "../llm.h"

#ifdef _WIN32
#include <windows.h>
// after it
#include <fcntl.h>
#include <io.h>
#include <shellapi.h>
#endif

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cli {

// A string by printf's patterns.
template <class... Values> std::string format(const char* pattern, Values... values) {
    std::string text(static_cast<std::size_t>(std::snprintf(nullptr, 0, pattern, values...)), '\0');
    std::snprintf(text.data(), text.size() + 1, pattern, values...);
    return text;
}

using Setter = std::function<void(const std::string& value)>;  // throws what is wrong with the value

struct Flag {
    std::string short_name, long_name, argument, help;  // argument: what --help calls the value, "" for a switch
    Setter set;
};

// ---- Setters

template <class Text> Setter text(Text& target) {
    return [&target](const std::string& value) { target = value; };
}

inline Setter once(std::optional<std::string>& target) {
    return [&target](const std::string& value) {
        if (target) throw llm::Error("given twice, now as '" + value + "': put a text with spaces in quotes");
        target = value;
    };
}

template <class T, class Target> Setter number(Target& target, T lowest, T highest) {
    return [&target, lowest, highest](const std::string& text) {
        std::istringstream in(text);
        T value{};
        if (!(in >> std::noskipws >> value) || in.peek() != EOF || value < lowest || value > highest)
            throw llm::Error(format(std::is_integral_v<T> ? "'%s' is not a whole number from %.10g to %.10g"
                                                          : "'%s' is not a number from %.6g to %.6g",
                                    text.c_str(), double(lowest), double(highest)));
        target = value;
    };
}

template <class T> Setter choice(T& target, const std::vector<std::pair<std::string, T>>& choices) {
    return [&target, choices](const std::string& text) {
        std::string names;
        for (const auto& [name, value] : choices) {
            if (name == text) return void(target = value);
            names += (names.empty() ? "neither " : " nor ") + name;
        }
        throw llm::Error("'" + text + "' is " + names);
    };
}

inline Setter dtype(llm::DType& target) {
    return choice<llm::DType>(target, {{"native", llm::DType::native},
                                       {"q8_0", llm::DType::q8_0},
                                       {"q4_0", llm::DType::q4_0},
                                       {"f32", llm::DType::f32}});
}

template <class T> Setter turn(T& target, T to) {
    return [&target, to](const std::string&) { target = to; };
}

// ---- The command line

// The arguments in UTF-8, without the program's name; a console that shows UTF-8 and colours, and takes UTF-8; output
// that is the same bytes as elsewhere.
inline std::vector<std::string> arguments([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
#ifdef _WIN32
    SetConsoleOutputCP(CP_UTF8);
    SetConsoleCP(CP_UTF8);
    for (const DWORD stream : {STD_OUTPUT_HANDLE, STD_ERROR_HANDLE}) {
        DWORD mode = 0;
        const HANDLE console = GetStdHandle(stream);
        if (GetConsoleMode(console, &mode)) SetConsoleMode(console, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
    }
    _setmode(_fileno(stdout), _O_BINARY);
    std::vector<std::string> args;
    wchar_t** const wide = CommandLineToArgvW(GetCommandLineW(), &argc);
    for (int i = 1; wide && i < argc; ++i) args.push_back(std::filesystem::path(wide[i]).u8string());
    LocalFree(wide);
    return args;
#else
    return {argv + std::min(argc, 1), argv + argc};
#endif
}

// `help` is the flag that lists them all, `free` the flag that an argument without a dash stands for, or behind "--" any.
inline void parse(const std::vector<std::string>& args, const std::vector<Flag>& flags, const std::string& help,
                  const std::string& free = "") {
    bool options = true;  // until "--" ends them
    for (std::size_t i = 0; i < args.size(); ++i) {
        std::string name = args[i];
        std::optional<std::string> value;
        if (options && !free.empty() && name == "--") {
            options = false;
            continue;
        }
        if (!free.empty() && (!options || name.size() < 2 || name[0] != '-')) {
            value = name;
            name = free;
        } else if (const std::size_t equals = name.find('='); name.rfind("--", 0) == 0 && equals != std::string::npos) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        const auto is_meant = [&](const Flag& f) {
            return !name.empty() && (name == f.short_name || name == f.long_name);
        };
        const auto flag = std::find_if(flags.begin(), flags.end(), is_meant);
        if (flag == flags.end()) throw llm::Error(name + ": unknown option: try " + help);
        if (flag->argument.empty() && value) throw llm::Error(name + ": takes no value: '" + *value + "'");
        if (!flag->argument.empty() && !value) {
            if (++i == args.size()) throw llm::Error(name + ": its value is missing: try " + help);
            value = args[i];
        }
        try {
            flag->set(value.value_or(""));
        } catch (const llm::Error& e) {
            throw llm::Error(name + ": " + e.what());
        }
    }
}

}  // namespace cli
