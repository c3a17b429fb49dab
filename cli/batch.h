// What build/llm --batch reads, a prompt on each line, and how it writes the texts: a line of JSON for each, in the order
// of the prompts.

#pragma once

#include <algorithm>
#include <climits>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../llm.h"
#include "flags.h"
#include "json.h"

namespace cli {

struct BatchLine {
    int number = 0;  // of the line in its file, from 1 on
    llm::Request request{};
    std::string error{};   // what is wrong with it, or empty
    std::string result{};  // its line of JSON, when it is done
};

inline double batch_number(const llm::detail::Json& value, double lowest, double highest, bool whole) {
    const double x = value.number();
    if (!(x >= lowest && x <= highest) || (whole && x != std::floor(x)))
        throw llm::Error(
            format("%.17g is not a %snumber from %.16g to %.16g", x, whole ? "whole " : "", lowest, highest));
    return x;
}

// An object's members, by the names of build/llm's flags.
inline void read_members(const llm::detail::Json& object, llm::Request& request) {
    using Json = llm::detail::Json;
    llm::GenerateOptions& o = request.options;
    llm::Sampling& s = o.sampling;
    const auto count = [](int& target, int lowest) {
        return [&target, lowest](const Json& v) { target = int(batch_number(v, lowest, INT_MAX, true)); };
    };
    const auto real = [](float& target) {
        return [&target](const Json& v) { target = float(batch_number(v, 0, 1e6, false)); };
    };
    const std::map<std::string_view, std::function<void(const Json&)>> members = {
        {"prompt", [&](const Json& v) { request.prompt = v.string(); }},
        {"n_predict", count(o.max_tokens, -1)},
        {"seed", [&](const Json& v) { s.seed = std::uint64_t(batch_number(v, 0, 9007199254740991, true)); }},
        {"stop",
         [&](const Json& v) {
             o.stop.clear();
             if (v.is<std::string_view>()) o.stop.emplace_back(v.string());
             else if (!v.is<Json::Array>()) throw llm::Error("it is no text and no list");
             else
                 for (const Json& one : v.array()) o.stop.emplace_back(one.string());
         }},
        {"temp", real(s.temperature)},
        {"top_k", count(s.top_k, 0)},
        {"top_p", real(s.top_p)},
        {"min_p", real(s.min_p)},
        {"repeat_penalty", real(s.repeat_penalty)},
        {"repeat_last_n", count(s.repeat_last_n, 0)},
        {"ignore_eos", [&](const Json& v) { o.ignore_end = v.boolean(); }},
    };
    if (!object.find("prompt")) throw llm::Error("there is no \"prompt\"");
    for (const auto& [name, value] : object.members()) {
        const auto member = members.find(name);
        if (member == members.end()) throw llm::Error("unknown member " + llm::detail::shown(name));
        try {
            member->second(value);
        } catch (const llm::Error& e) {
            const std::string what = e.what();  // without the remedy, which is one of models' files
            throw llm::Error(std::string(name) + ": " + what.substr(0, what.find(": ")));
        }
    }
}

// Every line that is not empty: an object if it begins with a brace, or else a prompt as it stands. What is not said takes
// the options; the seed, the options' and the line's place. `check` throws what else is wrong with a request.
inline std::vector<BatchLine> read_batch(const std::string& text, const llm::GenerateOptions& options,
                                         const std::function<void(const llm::Request&)>& check) {
    std::vector<BatchLine> lines;
    for (std::size_t begin = 0, end, number = 1; begin < text.size(); begin = end + 1, ++number) {
        end = std::min(text.find('\n', begin), text.size());
        std::string line = text.substr(begin, end - begin);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        const std::size_t first = line.find_first_not_of(" \t");
        if (first == std::string::npos) continue;
        BatchLine& one = lines.emplace_back();
        one.number = int(number);
        one.request.options = options;
        one.request.options.sampling.seed += number - 1;
        try {
            if (line[first] == '{') {
                const llm::detail::JsonDocument document(line, "the object");
                read_members(document.root(), one.request);
            } else {
                one.request.prompt = line;
            }
            check(one.request);
        } catch (const llm::Error& e) {
            one.error = e.what();
            one.result = format("{\"number\":%d,\"error\":", one.number) + json_string(one.error) + "}\n";
        }
    }
    return lines;
}

// {"number", "text", "end", "prompt_tokens", ..., "seed", "tokens"}: the ids, or what --logprobs tells of each.
inline std::string json_of(const BatchLine& line, const llm::Completion& c, bool interrupted,
                           const std::string& tokens) {
    std::string ids;
    for (const int id : c.tokens) ids += (ids.empty() ? "" : ",") + std::to_string(id);
    return format("{\"number\":%d,\"text\":", line.number) + json_string(c.text) + "," +
           json_of(c.stats, interrupted && c.stats.end == llm::End::callback) +
           format(",\"seed\":%llu", static_cast<unsigned long long>(line.request.options.sampling.seed)) +
           ",\"tokens\":[" + (tokens.empty() ? ids : tokens) + "]}\n";
}

}  // namespace cli
