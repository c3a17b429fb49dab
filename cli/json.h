// What build/llm writes as JSON: each token (--logprobs) and a whole result (--json).

#pragma once

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "../llm.h"
#include "flags.h"

namespace cli {

// A string of JSON. Bytes that are no valid UTF-8 become U+FFFD.
inline std::string json_string(std::string_view text) {
    std::string out = "\"";
    for (std::size_t i = 0, n = 0; i < text.size(); i += n) {
        const auto [code_point, length] = llm::detail::utf8_decode(text, i);
        n = length;
        if (code_point == '"' || code_point == '\\') out += std::string("\\") + text[i];
        else if (code_point < ' ') out += format("\\u%04x", unsigned(code_point));
        else out += code_point == 0xFFFFFFFF ? "\\ufffd" : std::string(text.substr(i, n));
    }
    return out + "\"";
}

// {"id", "text", "bytes", "logprob", "likeliest": the same of other tokens, if there are some}. JSON has no infinity: a
// token without any probability has null.
inline std::string json_of(const llm::TokenInfo& token) {
    const auto list = [](const auto& items, const auto& item) {
        std::string out;
        for (const auto& one : items) out += (out.empty() ? "" : ",") + item(one);
        return "[" + out + "]";
    };
    const auto byte = [](char c) { return std::to_string(static_cast<unsigned char>(c)); };
    const double p = token.log_probability;
    return format("{\"id\":%d,\"text\":", token.id) + json_string(token.text) + ",\"bytes\":" + list(token.text, byte) +
           ",\"logprob\":" + (std::isfinite(p) ? format("%.6f", p) : "null") +
           (token.likeliest.empty() ? "" : ",\"likeliest\":" + list(token.likeliest, json_of)) + "}";
}

inline std::string json_of(const llm::Stats& s, bool interrupted) {
    static constexpr const char* kEnds[] = {"end_token", "stop_text", "max_tokens",
                                            "context",   "callback",  "interrupted"};
    return format(
        "\"end\":\"%s\",\"prompt_tokens\":%d,\"prompt_seconds\":%.6f,\"generated\":%d,\"generate_seconds\":%.6f",
        interrupted ? "interrupted" : kEnds[static_cast<int>(s.end)], s.prompt_tokens, s.prompt_s, s.generated,
        s.generate_s);
}

}  // namespace cli
