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

// The tiny models' tokenizers, from every kind of file that can hold them.
struct NamedTokenizer {
    std::string name;
    bool byte_level;
    Tokenizer tokenizer;
};

// gpt2-tiny's as vocab.json and merges.txt, as GPT-2 was published
void write_vocab_and_merges(const fs::path& directory) {
    const JsonDocument whole = read_json(tiny("gpt2-tiny/tokenizer.json"));
    std::string vocab = "{\"<|endoftext|>\": 767", merges = "#version: 0.2\n";
    const auto quoted = [](std::string_view s) {
        return '"' + detail::replace_all(detail::replace_all(s, "\\", "\\\\"), "\"", "\\\"") + '"';
    };
    for (const auto& [spelling, id] : whole.root().find("model")->find("vocab")->members())
        vocab += ", " + quoted(spelling) + ": " + std::to_string(id.whole());
    for (const Json& merge : whole.root().find("model")->find("merges")->array())
        merges += std::string(merge.array()[0].string()) + " " + std::string(merge.array()[1].string()) + "\n";
    write_file(directory / "vocab.json", vocab + "}");
    write_file(directory / "merges.txt", merges);
}

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
        write_vocab_and_merges(directory.path);
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

// Each way of encoding once: GPT-2's, and Gemma's by merges and, from a GGUF, by ranks.
std::vector<NamedTokenizer> each_way() { return {tiny_tokenizers()[0], tiny_tokenizers()[2], tiny_tokenizers()[3]}; }

// What a text should be after encode and decode. Gemma has one token for U+2581 and for a space.
std::string round_trip(const NamedTokenizer& t, const std::string& bytes) {
    return t.byte_level ? bytes : detail::replace_all(bytes, detail::kSpaceMark, " ");
}

TEST_CASE("any bytes decode back to themselves") {
    const char* const parts[] = {" ",        "  ",   "\n",  "a",      "the",    "\xC3",   "\xA9",          "\xE2\x96",
                                 "\x81",     "'s",   "123", "\u00e9", "\r\n",   "\u65e5", "<bos>",         "<",
                                 "\xF0\x9F", "\xFF", "\t",  "The",    "\u2581", "<0x0A>", "<|endoftext|>", "\xF4\x90",
                                 "\0"};
    std::uint32_t part = 0;
    for (const NamedTokenizer& one : each_way()) {
        CAPTURE(one.name);
        const auto check = [&](const std::string& bytes) {
            for (const llm::Special special : {llm::Special::parsed, llm::Special::as_text})
                if (one.tokenizer.decode(one.tokenizer.encode(bytes, special, false)) != round_trip(one, bytes))
                    FAIL_CHECK("not decoded to itself: " << bytes);
        };
        for (int a = 0; a < 256; a += kThinned) {
            check({static_cast<char>(a)});
            for (int b = 0; b < 256; ++b) check({static_cast<char>(a), static_cast<char>(b)});
        }
        Random random{1};
        for (int i = 0; i < 3000 / kThinned; ++i) {
            std::string bytes, pieces;
            for (int n = random.below(30); n > 0; --n) {
                bytes += static_cast<char>(random.below(256));
                pieces += random.of(parts);
            }
            check(bytes);
            check(pieces);
        }
        // Every third 4096 characters, each tokenizer others.
        for (std::uint32_t first = 0x1000 * part++; first < 0x110000; first += 0x3000 * kThinned) {
            std::string all;
            for (std::uint32_t c = first; c < first + 0x1000; ++c)
                if (c < 0xD800 || c > 0xDFFF) detail::utf8_append(all, c);
            if (one.tokenizer.decode(one.tokenizer.encode(all, llm::Special::parsed, false)) != round_trip(one, all))
                FAIL_CHECK("not decoded to itself: from code point " << first);
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

// What takes quadratic time would not end here.
void check_long_texts(const Tokenizer& tokenizer) {
    for (const std::string repeated : {"a", " ", "\n", "he", "1", "\xFF", "\u00e9", "<bos", "'"}) {
        CAPTURE(repeated);
        std::string all;
        while (all.size() < 250000 / kThinned) all += repeated;
        CHECK((tokenizer.decode(tokenizer.encode(all, llm::Special::parsed, false)) == all));
    }
}

TEST_CASE("a long text of anything is encoded, and comes back") {
    for (const NamedTokenizer& one : each_way()) {
        CAPTURE(one.name);
        check_long_texts(one.tokenizer);
    }
}

void check_vocabulary(const Tokenizer& tokenizer) {
    for (int id = 0; id < tokenizer.vocab_size(); ++id) {
        const std::string piece = tokenizer.piece(id);
        const std::vector<int> ids = tokenizer.encode(piece, llm::Special::parsed, false);
        if (tokenizer.decode(ids) != piece) FAIL("token " << id << " becomes " << tokenizer.decode(ids));
        if (!piece.empty()) tokenizer.encode(piece.substr(0, piece.size() - 1) + "\xFF" + piece);
    }
}

TEST_CASE("every token of a vocabulary comes back from its text") {
    for (const NamedTokenizer& one : each_way()) check_vocabulary(one.tokenizer);
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

    // A special token of one character is no character of a text.
    Files files = directory_of(true);
    SmallTokenizer t(true, 300);
    t.tokens[3] = "\u2766";
    files["tokenizer.json"] = tokenizer_json(t, true);
    const TemporaryDirectory directory;
    write_files(directory.path, files);
    const Tokenizer heart = load(directory.path).tokenizer();
    CHECK(heart.encode("\u2766", llm::Special::parsed, false) == std::vector<int>{3});
    CHECK(heart.encode("\u2766", llm::Special::as_text, false).size() == 3);  // bytes
}

// A tokenizer without a model, of what is in a directory.
std::shared_ptr<const detail::TokenizerData> read_tokenizer(const fs::path& directory, int rows) {
    detail::Checkpoint file;
    file.path = file.directory = directory.string();
    return detail::TokenizerLoader(file).load(rows);
}

TEST_CASE("a tokenizer's files say together what transformers makes of them") {
    const JsonDocument document = read_json(test_data() / "tokenizers.json");
    const Json& texts = document.root()["texts"];
    for (const Json& one : document.root()["cases"].array()) {
        const std::string name(one["name"].string()), model(one["model"].string()), error(one["error"].text());
        CAPTURE(name);
        const int rows = model == "gpt2-tiny" ? 768 : 1024;
        const TemporaryDirectory directory;
        std::string whole = read_file(tiny(model) + "/tokenizer.json");
        for (const Json& edit : one["replaced"].array())
            whole = replaced(whole, std::string(edit.array()[0].string()), std::string(edit.array()[1].string()));
        if (one["json"].boolean()) write_file(directory.path / "tokenizer.json", whole);
        else write_vocab_and_merges(directory.path);
        for (const auto& [file, content] : one["files"].members())
            write_file(directory.path / std::string(file), std::string(content.string()));
        if (!error.empty()) {
            CHECK(error_of([&] { read_tokenizer(directory.path, rows); }).find(error) != std::string::npos);
            continue;
        }
        const auto tokenizer = read_tokenizer(directory.path, rows);
        for (std::size_t i = 0; i < texts.array().size(); ++i) {
            CAPTURE(texts.array()[i].string());
            std::vector<int> ids = tokenizer->before;
            detail::Encoder{*tokenizer, ids}.encode(texts.array()[i].string(), llm::Special::parsed);
            ids.insert(ids.end(), tokenizer->after.begin(), tokenizer->after.end());
            CHECK(ids == ints(one["ids"].array()[i]));
        }
    }
}

TEST_CASE("a byte that has no token is left out, as in the reference") {
    const TemporaryDirectory directory;
    write_file(
        directory.path / "tokenizer.json",
        R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE","merges":["a b"],)"
        R"("vocab":{"a":0,"b":1,"ab":2}}})");
    const auto read = [&] { return read_tokenizer(directory.path, 3); };
    std::vector<int> ids;
    detail::Encoder{*read(), ids}.encode("aqb qb", llm::Special::as_text);
    CHECK(ids == std::vector<int>{2, 1});
    write_file(directory.path / "tokenizer.json",
               R"({"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","merges":[],"vocab":{"zz":0}}})");
    CHECK_ERROR(read(), "no byte");
}

TEST_CASE("what a text begins and ends with has an end") {
    const TemporaryDirectory directory;
    const auto read = [&](int parts, int ids) {
        std::string steps = R"({"Sequence":{"id":"A"}})", list = "0";
        for (int i = 0; i < parts; ++i) steps += R"(,{"SpecialToken":{"id":"x"}})";
        for (int i = 1; i < ids; ++i) list += ",1";
        write_file(directory.path / "tokenizer.json",
                   R"({"pre_tokenizer":{"type":"ByteLevel"},"post_processor":{"type":"TemplateProcessing","single":[)" +
                       steps + R"(],"special_tokens":{"x":{"ids":[)" + list +
                       R"(]}}},"model":{"type":"BPE","merges":[],"vocab":{"a":0,"b":1}}})");
        return read_tokenizer(directory.path, 2);
    };
    CHECK(read(2, 3)->after == std::vector<int>{0, 1, 1, 0, 1, 1});
    CHECK(read(2, 32)->after.size() == 64);
    CHECK_ERROR(read(2, 33), "too many tokens");
    CHECK_ERROR(read(1000, 0), "too many parts");
}

TEST_CASE("generation_config.json says which tokens end a text; tokens that are forced or forbidden are refused") {
    const TemporaryDirectory directory;
    Files files = files_of(tiny("gemma3-tiny"));
    const auto tokenizer = [&](const char* config) {
        files["generation_config.json"] = config;
        write_files(directory.path, files);
        if (!*config) fs::remove(directory.path / "generation_config.json");
        return load(directory.path).tokenizer();
    };
    files["config.json"] = detail::replace_all(files["config.json"], "\"eos_token_id\": 1", "\"eos_token_id\": 7");
    CHECK(tokenizer("{}").is_eos(7));
    CHECK(tokenizer(R"({"eos_token_id": null})").is_eos(7));
    const Tokenizer said = tokenizer(R"({"eos_token_id": [8, 9], "suppress_tokens": [], "bad_words_ids": null})");
    CHECK((said.is_eos(8) && said.is_eos(9) && !said.is_eos(7)));
    CHECK_ERROR(tokenizer(R"({"suppress_tokens": [3]})"), "generation_config.json", "suppress_tokens");
    CHECK_ERROR(tokenizer(R"({"forced_eos_token_id": 1})"), "forced_eos_token_id");
    CHECK_ERROR(tokenizer(R"({"sequence_bias": {"3": 1.0}})"), "sequence_bias");
    // config.json's count where there is no other file.
    files["config.json"] =
        detail::replace_all(files["config.json"], "\"eos_token_id\"", "\"bad_words_ids\": [[5]], \"eos_token_id\"");
    CHECK(tokenizer("{}").is_eos(7));
    CHECK_ERROR(tokenizer(""), "bad_words_ids");
}

TEST_CASE("a GGUF's own keys: bos, eos, a space before, turn tokens of any type, Gemma's vocabulary by another name") {
    const TemporaryDirectory directory;
    const Gguf original = as_gguf(tiny("gemma3-tiny"), TensorType::f16);
    const auto tokenizer = [&](const Gguf& file) {
        write_file(directory.path / "model.gguf", file.bytes());
        return load(directory.path / "model.gguf").tokenizer();
    };
    const auto parsed = [](const Tokenizer& t, const char* text) { return t.encode(text, llm::Special::parsed); };
    const std::vector<int> turn = {2, 4, 419, 278, 959, 380, 5, 959};
    const char* const text = "<start_of_turn>user\nhi<end_of_turn>\n";
    CHECK(parsed(tokenizer(original), text) == turn);

    Gguf file = original;
    file.set("tokenizer.ggml.add_bos_token", false);
    file.set("tokenizer.ggml.add_eos_token", true);
    file.set("tokenizer.ggml.add_space_prefix", true);
    CHECK(parsed(tokenizer(file), "hi").back() == 1);
    CHECK(tokenizer(file).decode(tokenizer(file).encode("hi")) == " hi<eos>");
}

TEST_CASE("Gemma's vocabulary under the name gpt2, as converters write it without tokenizer.model") {
    const JsonDocument whole = read_json(tiny("gemma3-tiny") + "/tokenizer.json");
    const Json& model = whole.root()["model"];
    detail::Checkpoint file;
    file.is_gguf = true;
    std::vector<std::string> pairs;
    for (const Json& merge : model["merges"].array())
        pairs.push_back(std::string(merge.array()[0].string()) + " " + std::string(merge.array()[1].string()));
    std::vector<std::string_view> tokens(1024);
    std::vector<double> types(1024, 1);  // all normal, those around a turn too
    for (const auto& [spelling, id] : model["vocab"].members()) tokens[std::size_t(id.whole())] = spelling;
    std::fill(types.begin(), types.begin() + 4, 3);
    const std::string name = "a GGUF";
    const auto value = [&](auto one) { return Json(std::move(one), name); };
    const auto list = [&](const auto& items) {
        Json::Array all;
        for (const auto& one : items) all.push_back(value(one));
        return value(std::move(all));
    };
    Json::Object metadata;
    metadata.emplace_back("tokenizer.ggml.model", value(std::string_view("gpt2")));
    metadata.emplace_back("tokenizer.ggml.pre", value(std::string_view("gemma")));
    metadata.emplace_back("tokenizer.ggml.tokens", list(tokens));
    metadata.emplace_back("tokenizer.ggml.token_type", list(types));
    metadata.emplace_back("tokenizer.ggml.bos_token_id", value(2.0));
    metadata.emplace_back("tokenizer.ggml.merges", list(std::vector<std::string_view>(pairs.begin(), pairs.end())));
    metadata.emplace_back("tokenizer.chat_templates", list(std::vector<std::string_view>{"short", "long"}));
    metadata.emplace_back("tokenizer.chat_template.short", value(std::string_view("{{ it }}")));
    file.config = {value(std::move(metadata)), {name}};
    const auto tokenizer = detail::TokenizerLoader(file).load(1024);
    const Tokenizer original = load(tiny("gemma3-tiny")).tokenizer();
    CHECK(tokenizer->before == std::vector<int>{2});
    CHECK(tokenizer->chat_template == "{{ it }}");
    CHECK(std::count(tokenizer->ends.begin(), tokenizer->ends.end(), 5) == 1);
    for (const Text& one : texts("gemma3")) {
        const std::string text = "<start_of_turn>" + one.text + "<end_of_turn>";
        std::vector<int> ids;
        detail::Encoder{*tokenizer, ids}.encode(text, llm::Special::parsed);
        if (ids != original.encode(text, llm::Special::parsed, false)) FAIL_CHECK("other ids of " << text);
    }
}

TEST_CASE("an id that is no token is refused") {
    for (const NamedTokenizer& one : tiny_tokenizers())
        for (const int id : {-1, one.tokenizer.vocab_size(), INT_MAX, INT_MIN}) {
            CHECK(error_of([&] { one.tokenizer.piece(id); }).find(std::to_string(id)) != std::string::npos);
            CHECK(error_of([&] { one.tokenizer.decode({1, id}); }).find(std::to_string(id)) != std::string::npos);
        }
}

// ---- rules of a file

// Gemma's tokenizer, its two rarest merges replaced by runs of 2 and of 3 spaces, which merge before all others, the
// longest first; in tokenizer.json by the order of the merges, in a GGUF by kind and length.
TEST_CASE("runs of spaces merge first, the longest before others, in both formats") {
    SmallTokenizer t(true);
    const std::string mark(detail::kSpaceMark), two = mark + mark, three = two + mark;
    for (const std::string& run : {two, three}) {
        const std::string last = t.merges.back().first + t.merges.back().second;
        const auto id = static_cast<std::size_t>(std::find(t.tokens.begin(), t.tokens.end(), last) - t.tokens.begin());
        t.tokens[id] = run;
        t.kinds[id] = 4;
        t.merges.erase(std::remove_if(t.merges.begin(), t.merges.end(),
                                      [&](const auto& m) {
                                          return m.first == last || m.second == last || m.first + m.second == last;
                                      }),
                       t.merges.end());
    }
    Gguf gguf = as_gguf(tiny("gemma3-tiny"), TensorType::bf16);
    add_tokenizer(gguf, t, true);
    t.merges.insert(t.merges.begin(), {{two, mark}, {mark, two}, {mark, mark}});
    Files files = files_of(tiny("gemma3-tiny"));
    files["tokenizer.json"] = tokenizer_json(t, true);
    const TemporaryDirectory directory;
    write_file(directory.path / "model.gguf", gguf.bytes());
    write_files(directory.path, files);
    const Tokenizer by_merges = load(directory.path).tokenizer(),
                    by_kind = load(directory.path / "model.gguf").tokenizer();
    const auto pieces = [](const Tokenizer& tokenizer, const std::string& text) {
        std::vector<std::string> all;
        for (const int id : tokenizer.encode(text, llm::Special::parsed, false)) all.push_back(tokenizer.piece(id));
        return all;
    };
    using Pieces = std::vector<std::string>;
    for (const Tokenizer& one : {by_merges, by_kind}) {
        CHECK(pieces(one, "to the") == Pieces{"to", " the"});
        CHECK(pieces(one, "to  the") == Pieces{"to", "  ", "the"});
        CHECK(pieces(one, "to   the") == Pieces{"to", "   ", "the"});
        CHECK(pieces(one, "to    the") == Pieces{"to", "   ", " the"});  // not two and two
        CHECK(pieces(one, "to       the") == Pieces{"to", "   ", "   ", " the"});
    }
    Random random{1};
    for (int i = 0; i < 500; ++i) {
        std::string text;
        for (int n = random.below(20); n > 0; --n)
            text += random.of(std::vector<std::string>{" ", "  ", "the", "a", "\n", "   "});
        CHECK(by_merges.encode(text) == by_kind.encode(text));
    }
}

// What users added is looked for in the text as it is, so " the" is not Gemma's own, which is spelled with a mark.
TEST_CASE("a GGUF of Gemma: tokens of users with spaces in them, and runs of spaces of any type") {
    SmallTokenizer t(true);
    const std::vector<std::pair<std::string, int>> added = {{"good night", 4}, {" the", 4}, {"  ", 1}};
    const int first = 900;  // in the place of some rare tokens
    for (std::size_t i = 0; i < added.size(); ++i) std::tie(t.tokens[first + i], t.kinds[first + i]) = added[i];
    Gguf gguf = as_gguf(tiny("gemma3-tiny"), TensorType::bf16);
    add_tokenizer(gguf, t, true);
    gguf.set("tokenizer.ggml.eom_token_id", 300);
    gguf.set_list("tokenizer.ggml.eos_token_ids", Gguf::u64, std::vector<std::uint64_t>{1, 301, (1ull << 32) + 302});
    const TemporaryDirectory directory;
    write_file(directory.path / "model.gguf", gguf.bytes());
    const Tokenizer tokenizer = load(directory.path / "model.gguf").tokenizer();

    const auto encode = [&](const char* text) { return tokenizer.encode(text, llm::Special::as_text, false); };
    CHECK(encode("good night") == std::vector<int>{first});
    CHECK(encode("to the") == detail::joined({encode("to"), {first + 1}}));
    CHECK(encode("to  to") == detail::joined({encode("to"), {first + 2}, encode("to")}));
    for (const char* text : {"a good night to the king", "to  the", "   "})
        CHECK(tokenizer.decode(encode(text)) == text);
    for (const int id : {1, 300, 301}) CHECK(tokenizer.is_eos(id));
    CHECK(!tokenizer.is_eos(302));
}

TEST_CASE("a GGUF says whether a text begins with a space, and with bos") {
    const TemporaryDirectory directory;
    const auto tokenizer = [&](const Gguf& file) {
        write_file(directory.path / "model.gguf", file.bytes());
        return load(directory.path / "model.gguf").tokenizer();
    };
    for (const bool gemma : {false, true}) {
        CAPTURE(gemma);
        Gguf file = small_gguf(gemma);
        const Tokenizer plain = tokenizer(file);
        const std::vector<int> to = plain.encode("to", llm::Special::parsed, false),
                               space_to = plain.encode(" to", llm::Special::parsed, false);
        REQUIRE(to != space_to);
        CHECK(plain.encode("to") == (gemma ? detail::joined({{plain.bos()}, to}) : to));
        file.set("tokenizer.ggml.add_space_prefix", true);
        const Tokenizer prefixed = tokenizer(file);
        CHECK(prefixed.encode("to", llm::Special::parsed, false) == space_to);
        CHECK(prefixed.encode("", llm::Special::parsed, false).empty());
        if (!gemma) CHECK(prefixed.encode(" to", llm::Special::parsed, false) == space_to);  // it has one
        file.set("tokenizer.ggml.add_space_prefix", false);
        CHECK(tokenizer(file).encode("to", llm::Special::parsed, false) == to);
        file.set("tokenizer.ggml.add_bos_token", true);
        CHECK(tokenizer(file).encode("to") == detail::joined({{plain.bos()}, to}));
        file.set("tokenizer.ggml.add_bos_token", false);
        CHECK(tokenizer(file).encode("to") == to);
    }
}

TEST_CASE("of the added tokens that a text begins with, the longest is taken") {
    for (const bool gemma : {false, true}) {
        CAPTURE(gemma);
        Files files = directory_of(gemma);
        const std::string known = gemma ? "<eos>" : "<|endoftext|>";
        SmallTokenizer t(gemma, 300);
        for (std::size_t i = 0; i < 3; ++i)
            if (gemma)
                t.tokens[std::vector<std::size_t>{0, 3, 5}[i]] =
                    std::vector<std::string>{"<eos><eos>", "<eo", "<eos>!"}[i];
            else
                t.tokens.push_back(std::vector<std::string>{known + known, "<|end", known + "!"}[i]),
                    t.kinds.push_back(3);
        files["tokenizer.json"] = tokenizer_json(t, gemma);
        const TemporaryDirectory directory;
        write_files(directory.path, files);
        const Tokenizer tokenizer = load(directory.path).tokenizer();
        const auto pieces = [&](const std::string& text) {
            std::vector<std::string> all;
            for (const int id : tokenizer.encode(text, llm::Special::parsed, false)) all.push_back(tokenizer.piece(id));
            return all;
        };
        using Pieces = std::vector<std::string>;
        CHECK(pieces(known) == Pieces{known});
        CHECK(pieces(known + known) == Pieces{known + known});
        CHECK(pieces(known + known + known) == Pieces{known + known, known});
        CHECK(pieces(known + "!") == Pieces{known + "!"});
        CHECK(pieces(known + "?") == Pieces{known, "?"});
        CHECK(tokenizer.special_id(known) == tokenizer.encode(known, llm::Special::parsed, false)[0]);
        CHECK(tokenizer.special_id(known.substr(0, known.size() - 1)) == -1);
    }
}

// ---- real vocabularies

// Gemma has one token for U+2581 and for a space.
std::string without_marks(const std::string& text) { return detail::replace_all(text, detail::kSpaceMark, " "); }

void check_real(const std::string& name, const std::string& file) {
    const Tokenizer tokenizer = load(real_model(file)).tokenizer();
    for (const Text& one : texts(name)) {
        CAPTURE(one.text);
        CHECK(tokenizer.encode(one.text, llm::Special::parsed, false) == one.ids);
        CHECK(without_marks(tokenizer.decode(one.ids)) == without_marks(one.text));
    }
    check_long_texts(tokenizer);
    check_vocabulary(tokenizer);
}

TEST_CASE("GPT-2's vocabulary gives the reference's ids" * needs("gpt2-124m")) { check_real("gpt2", "gpt2-124m"); }
TEST_CASE("Gemma's vocabulary gives the reference's ids, from a GGUF" * needs(kRealGemma)) {
    check_real("gemma3", kRealGemma);
}
TEST_CASE("Gemma's vocabulary gives the reference's ids, from a directory" * needs("gemma-3-270m-hf")) {
    check_real("gemma3", "gemma-3-270m-hf");
}

}  // namespace
}  // namespace tests
