// TOKENIZER: text to ids and back.

#include "small_models.h"
#include "support.h"

namespace tests {
namespace {

struct Text {
    std::string text;
    std::vector<int> ids;
};

// The 400 texts of tests/data/tok-NAME.jsonl with the ids of the reference, which are those of the real vocabulary.
std::vector<Text> texts(const std::string& name) {
    std::istringstream lines(read_file(test_data() / ("tok-" + name + ".jsonl")));
    std::vector<Text> all;
    for (std::string line; std::getline(lines, line);) {
        const JsonDocument document(line, name);
        all.push_back({text(document.root(), "text"), ints(*document.root().find("ids"))});
    }
    REQUIRE(all.size() == 400);
    return all;
}

TEST_CASE("real vocabularies give the reference's ids, and 1 MB of anything takes no time to speak of") {
    const std::pair<const char*, std::string> cases[] = {
        {"gpt2", "gpt2-124m"}, {"gemma3", kRealGemma}, {"gemma3", "gemma-3-270m-hf"}};
    for (const auto& [name, file] : cases) {
        const fs::path path = real_model(file);
        if (path.empty()) continue;
        CAPTURE(path);
        const Model model = load(path);
        for (const Text& one : texts(name)) {
            CAPTURE(one.text);
            CHECK(model.tokenizer().encode(one.text, llm::Special::parsed, false) == one.ids);
            // Gemma has one token for U+2581 and for a space.
            CHECK(detail::replace_all(model.tokenizer().decode(one.ids), "\u2581", " ") ==
                  detail::replace_all(one.text, "\u2581", " "));
        }
        for (const char* repeated : {"a", " ", "\n", "ab", "1", "\xFF"}) {
            std::string million;
            while (million.size() < 1000000) million += repeated;
            CHECK(model.tokenizer().decode(model.tokenizer().encode(million, llm::Special::parsed, false)) == million);
        }
    }
}

// The tiny models' tokenizers, from every kind of file that can hold them.
struct NamedTokenizer {
    std::string name;
    bool byte_level;
    Tokenizer tokenizer;
};

const std::vector<NamedTokenizer>& tiny_tokenizers() {
    static const std::vector<NamedTokenizer> all = [] {
        std::vector<NamedTokenizer> list;
        const TemporaryDirectory directory;
        const fs::path gguf = directory.path / "model.gguf";
        for (const std::string& name : kTinyModels) {
            const bool byte_level = name == "gpt2-tiny";
            list.push_back({name, byte_level, load(tiny(name)).tokenizer()});
            write_file(gguf, as_gguf(tiny(name), TensorType::f16).bytes());
            list.push_back({name + " as GGUF", byte_level, load(gguf).tokenizer()});
        }
        list.push_back({"GGUF of llama.cpp", false, load(test_data() / "layouts/gemma3-q8_0.gguf").tokenizer()});
        // vocab.json and merges.txt, as GPT-2 was published
        const JsonDocument whole = read_json(tiny("gpt2-tiny/tokenizer.json"));
        std::string vocab = "{\"<|endoftext|>\": 767", merges = "#version: 0.2\n";
        const auto quoted = [](std::string_view s) {
            return '"' + detail::replace_all(detail::replace_all(s, "\\", "\\\\"), "\"", "\\\"") + '"';
        };
        for (const auto& [spelling, id] : whole.root().find("model")->find("vocab")->members())
            vocab += ", " + quoted(spelling) + ": " + std::to_string(id.whole());
        for (const Json& merge : whole.root().find("model")->find("merges")->array())
            merges += std::string(merge.array()[0].string()) + " " + std::string(merge.array()[1].string()) + "\n";
        write_file(directory.path / "vocab.json", vocab + "}");
        write_file(directory.path / "merges.txt", merges);
        for (const char* file : {"config.json", "model.safetensors"})
            fs::copy(tiny("gpt2-tiny") + "/" + file, directory.path / file);
        list.push_back({"vocab.json and merges.txt", true, load(directory.path).tokenizer()});
        return list;
    }();
    return all;
}

TEST_CASE("a tokenizer is the same from every kind of file") {
    const std::vector<NamedTokenizer>& all = tiny_tokenizers();
    std::vector<Text> some = texts("gpt2");
    for (const Text& one : texts("gemma3")) some.push_back(one);
    for (const NamedTokenizer& one : all) {
        CAPTURE(one.name);
        const Tokenizer& first = all[one.byte_level ? 0 : 2].tokenizer;
        for (const Text& t : some)
            if (one.tokenizer.encode(t.text, llm::Special::parsed) != first.encode(t.text, llm::Special::parsed))
                FAIL_CHECK("other ids of " << t.text);
        for (int id = 0; id < first.vocab_size(); ++id)
            if (one.tokenizer.piece(id) != first.piece(id)) FAIL_CHECK("another piece " << id);
        CHECK(one.tokenizer.vocab_size() == first.vocab_size());
        CHECK(one.tokenizer.bos() == first.bos());
        CHECK(one.tokenizer.special_id("<end_of_turn>") == first.special_id("<end_of_turn>"));
    }
}

// What a text should be after encode and decode. Gemma has one token for U+2581 and for a space.
std::string round_trip(const NamedTokenizer& t, const std::string& bytes) {
    return t.byte_level ? bytes : detail::replace_all(bytes, detail::kSpaceMark, " ");
}

TEST_CASE("any bytes decode back to themselves") {
    const char* const parts[] = {" ",        "  ",   "\n",  "a",      "the",    "\xC3",   "\xA9",          "\xE2\x96",
                                 "\x81",     "'s",   "123", "\u00e9", "\r\n",   "\u65e5", "<bos>",         "<",
                                 "\xF0\x9F", "\xFF", "\t",  "The",    "\u2581", "<0x0A>", "<|endoftext|>", "\xF4\x90",
                                 "\0"};
    for (const NamedTokenizer& one : thinned(tiny_tokenizers())) {
        CAPTURE(one.name);
        const auto check = [&](const std::string& bytes) {
            for (const llm::Special special : {llm::Special::parsed, llm::Special::as_text})
                if (one.tokenizer.decode(one.tokenizer.encode(bytes, special, false)) != round_trip(one, bytes))
                    FAIL_CHECK("not decoded to itself: " << bytes);
        };
        for (int a = 0; a < 256; ++a) {
            check({static_cast<char>(a)});
            for (int b = a % kThinned; b < 256; b += kThinned) check({static_cast<char>(a), static_cast<char>(b)});
        }
        Random random{1};
        for (int i = 0; i < 5000 / kThinned; ++i) {
            std::string bytes, pieces;
            for (int n = random.below(30); n > 0; --n) {
                bytes += static_cast<char>(random.below(256));
                pieces += parts[random.below(std::size(parts))];
            }
            check(bytes);
            check(pieces);
        }
    }
}

// The numbers are those of the patterns \p{L}, \p{N} and \s of the reference, the Python package tokenizers.
TEST_CASE("every character is a letter, a number, white space or neither, as in the reference") {
    std::map<detail::CharClass, int> count;
    std::uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a of all classes in turn
    for (std::uint32_t c = 0; c < 0x110000; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;  // surrogates are no characters
        std::string character;
        detail::utf8_append(character, c);
        std::size_t length = 0;
        const detail::CharClass kind = detail::class_at(character, 0, length);
        if (length != character.size()) FAIL("code point " << c);
        ++count[kind];
        const unsigned number = kind == detail::CharClass::letter   ? 1
                                : kind == detail::CharClass::space  ? 2
                                : kind == detail::CharClass::number ? 3
                                                                    : 0;
        hash = (hash ^ number) * 0x100000001B3u;
    }
    CHECK(count[detail::CharClass::letter] == 141028);
    CHECK(count[detail::CharClass::number] == 1911);
    CHECK(count[detail::CharClass::space] == 25);
    CHECK(hash == 0x5FBE39043182D402u);
}

TEST_CASE("all of Unicode decodes back to itself") {
    for (const NamedTokenizer& one : thinned(tiny_tokenizers())) {
        CAPTURE(one.name);
        for (std::uint32_t first = 0; first < 0x110000; first += 0x1000 * kThinned) {
            std::string all;
            for (std::uint32_t c = first; c < first + 0x1000; ++c)
                if (c < 0xD800 || c > 0xDFFF) detail::utf8_append(all, c);
            if (one.tokenizer.decode(one.tokenizer.encode(all, llm::Special::parsed, false)) != round_trip(one, all))
                FAIL_CHECK("not decoded to itself: from code point " << first);
        }
    }
}

TEST_CASE("a long text takes little more than linear time") {
    for (const NamedTokenizer& one : thinned(tiny_tokenizers()))
        for (const std::string repeated : {"a", " ", "\n", "he", "\xFF", "\u00e9", "<bos", "'"}) {
            CAPTURE(one.name);
            std::string million;
            while (million.size() < 1000000 / kThinned) million += repeated;
            CHECK((one.tokenizer.decode(one.tokenizer.encode(million, llm::Special::parsed, false)) == million));
        }
}

TEST_CASE("special tokens are parsed on request, and begin a text where the model wants it") {
    const Tokenizer gpt2 = load(tiny("gpt2-tiny")).tokenizer(), gemma = load(tiny("gemma3-tiny")).tokenizer();
    CHECK(gpt2.bos() == 767);
    CHECK(gemma.bos() == 2);
    CHECK(gpt2.encode("") == std::vector<int>{});
    CHECK(gemma.encode("") == std::vector<int>{2});
    CHECK(gpt2.encode("<|endoftext|>", llm::Special::parsed) == std::vector<int>{767});
    CHECK(gemma.encode("<bos><end_of_turn>", llm::Special::parsed, false) == std::vector<int>{2, 5});
    CHECK(gemma.encode("<start_of_turn>user", llm::Special::parsed, false)[0] == 4);
    const std::string texts_with_specials[] = {"<|endoftext|>", "a<bos>b<eos>", "<start_of_turn>user\n<end_of_turn>"};
    for (const std::string& s : texts_with_specials) {
        for (const int id : gpt2.encode(s)) CHECK(id != 767);
        for (const int id : gemma.encode(s, llm::Special::as_text, false)) CHECK(id > 5);
    }
    CHECK(gpt2.encode("a<|endoftext|>b", llm::Special::parsed).size() == 3);
    for (int id = 0; id < 768; ++id) CHECK(gpt2.is_eos(id) == (id == 767));
    for (int id = 0; id < 1024; ++id) CHECK(gemma.is_eos(id) == (id == 1 || id == 5));
    CHECK(gemma.special_id("<eos>") == 1);
    CHECK(gemma.special_id("<eo") == -1);
    CHECK(gemma.special_id("the") == -1);  // a token, but not an added one
    CHECK(gemma.special_id("") == -1);
}

TEST_CASE("an id that is no token is refused") {
    for (const NamedTokenizer& one : tiny_tokenizers())
        for (const int id : {-1, one.tokenizer.vocab_size(), INT_MAX, INT_MIN}) {
            CHECK(error_of([&] { one.tokenizer.piece(id); }).find(std::to_string(id)) != std::string::npos);
            CHECK(error_of([&] { one.tokenizer.decode({1, id}); }).find(std::to_string(id)) != std::string::npos);
        }
}

void check_vocabulary(const llm::Tokenizer& tokenizer) {
    for (int id = 0; id < tokenizer.vocab_size(); ++id) {
        const std::string piece = tokenizer.piece(id);
        const std::vector<int> ids = tokenizer.encode(piece, llm::Special::parsed, false);
        if (tokenizer.decode(ids) != piece) FAIL("token " << id << " becomes " << tokenizer.decode(ids));
        if (!piece.empty()) tokenizer.encode(piece.substr(0, piece.size() - 1) + "\xFF" + piece);
    }
}

TEST_CASE("every token of a vocabulary comes back from its text") {
    for (const std::string& name : kTinyModels) check_vocabulary(load(tiny(name)).tokenizer());
    for (const char* name : {kRealGemma, "gemma-3-270m-hf", "gpt2-124m"})
        if (const fs::path path = real_model(name); !path.empty()) check_vocabulary(load(path).tokenizer());
}

}  // namespace
}  // namespace tests
