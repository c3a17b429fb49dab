// Lets any model write nothing but valid JSON: json MODEL COUNT TEMPERATURE PROMPT [NAME:TYPE...] writes so many objects,
// each from another seed; where fields are given (string, number, boolean, list or any), these and no others.
// A grammar is a stack of what must come, the next on top. Before each draw every token is tried out on a copy of it,
// byte by byte, and forbidden where it does not fit, or where too few tokens would be left to complete the text.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

constexpr int kTokens = 120;  // of an object, at most
// What is on the stack: a byte (0 to 255), or one of these, and the fewest bytes that each takes. In...: the rest of it.
constexpr int Any = 256, String = 257, Number = 258, Boolean = 259, List = 260, InString = 261, Escaped = 262,
              Digit = 263, InList = 264, InObject = 265, More = 266, Members = 267, Digits = 268, Fraction = 269,
              Space = 270;
constexpr int kFewest[] = {1, 2, 1, 4, 2, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0};

struct Grammar {
    std::vector<int> stack;
    int tail = 0, low = 0x80, high = 0xBF;  // bytes that a UTF-8 character lacks; the range of the next one

    bool then(std::initializer_list<int> symbols) {
        stack.insert(stack.end(), std::rbegin(symbols), std::rend(symbols));
        return true;
    }
    int fewest() const {  // bytes that complete the text
        int bytes = tail;
        for (const int s : stack) bytes += s < Any ? 1 : kFewest[s - Any];
        return bytes;
    }
    bool take(std::string_view text) {
        return std::all_of(text.begin(), text.end(), [&](char c) { return take(static_cast<unsigned char>(c)); });
    }
    bool take(int c) {
        if (stack.empty()) return false;
        if (tail > 0) {
            --tail;
            return c >= std::exchange(low, 0x80) && c <= std::exchange(high, 0xBF);
        }
        const int top = stack.back();
        const bool digit = c >= '0' && c <= '9';
        stack.pop_back();
        switch (top) {
            case Any:
                if (c == 'n') return then({'u', 'l', 'l'});
                if (c == '{' || c == '[') return stack.size() < 32 && then({c == '{' ? InObject : InList});
                return then({c == '"' ? String : c == 't' || c == 'f' ? Boolean : Number}) && take(c);
            case String: return c == '"' && then({InString});
            case Number:
                return c == '-' ? then({Digit, Fraction}) : digit && then({Fraction}) && (c == '0' || then({Digits}));
            case Boolean: return c == 't' ? then({'r', 'u', 'e'}) : c == 'f' && then({'a', 'l', 's', 'e'});
            case List: return c == '[' && then({InList});
            case Digit: return digit;
            case Digits: return digit ? then({Digits}) : take(c);
            case Fraction: return c == '.' ? then({Digit, Digits}) : take(c);
            case Space: return c == ' ' || take(c);
            case Escaped: return std::string_view("\"\\/bfnrt").find(static_cast<char>(c)) != std::string_view::npos;
            case InString: return c == '"' || (c == '\\' ? then({Escaped, InString}) : then({InString}) && begin(c));
            case InList: return c == ']' || (then({Any, More}) && take(c));
            case More: return c == ']' || (c == ',' && then({Space, Any, More}));
            case InObject: return c == '}' || (c == '"' && then({InString, ':', Space, Any, Members}));
            case Members: return c == '}' || (c == ',' && then({Space, '"', InString, ':', Space, Any, Members}));
            default: return c == top;
        }
    }
    bool begin(int c) {  // a character of a string
        tail = c < 0x80 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        if (c == 0xE0 || c == 0xF0) low = c == 0xE0 ? 0xA0 : 0x90;   // in no longer form than it needs
        if (c == 0xED || c == 0xF4) high = c == 0xED ? 0x9F : 0x8F;  // no surrogate, not above 0x10FFFF
        return c >= ' ' && (c < 0x80 || c >= 0xC2) && c <= 0xF4;
    }
};

Grammar object(const std::vector<std::string>& fields) {
    const std::vector<std::string> types = {"any", "string", "number", "boolean", "list"};
    std::vector<int> symbols = {'{'};
    for (const std::string& field : fields) {
        const std::size_t colon = std::min(field.find(':'), field.size() - 1);
        const auto type = std::find(types.begin(), types.end(), field.substr(colon + 1));
        const bool good =
            std::none_of(field.begin(), field.end(), [](char c) { return c == '"' || c == '\\' || (c & 0xE0) == 0; });
        if (type == types.end() || !good) throw llm::Error(field + " is not NAME:TYPE");
        const std::string name = (symbols.size() > 1 ? ",\"" : "\"") + field.substr(0, colon) + "\":";
        std::transform(name.begin(), name.end(), std::back_inserter(symbols), [](char c) { return c & 0xFF; });
        symbols.insert(symbols.end(), {Space, Any + static_cast<int>(type - types.begin())});
    }
    symbols.push_back(fields.empty() ? InObject : '}');
    return {{symbols.rbegin(), symbols.rend()}};
}

int main(int argc, char** argv) try {
    if (argc < 5) throw llm::Error("usage: json MODEL COUNT TEMPERATURE PROMPT [NAME:TYPE...]");
    llm::Session session(llm::Model::load(argv[1]));
    const llm::Tokenizer& tokenizer = session.model().tokenizer();
    llm::GenerateOptions options;
    options.max_tokens = kTokens;
    options.sampling.temperature = std::strtof(argv[3], nullptr);
    for (int seed = 0; seed < std::atoi(argv[2]); ++seed) {
        int left = kTokens;
        Grammar grammar = object({argv + 5, argv + argc});
        options.sampling.seed = static_cast<std::uint64_t>(seed);
        options.on_logits = [&](float* logits, int n) {
            const int room = std::min(left, session.context() - session.position());
            for (int id = 0; id < n; ++id) {
                Grammar next = grammar;
                if (tokenizer.is_eos(id) || !next.take(tokenizer.piece(id)) || next.fewest() >= room)
                    logits[id] = -INFINITY;
            }
        };
        options.on_token = [&](const llm::TokenInfo& token) {
            std::cout << token.text;
            --left;
            return grammar.take(token.text) && !grammar.stack.empty();
        };
        session.rewind(0);
        generate(session, argv[4], options);
        std::cout << std::endl;
        if (!grammar.stack.empty()) throw llm::Error("the context is too small for the prompt and an answer");
    }
} catch (const llm::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
