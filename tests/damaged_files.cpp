// Files that were damaged at random, cut off, or made to harm: they end in an llm::Error or in a model that runs, within
// bounds of memory. LLM_ROUNDS is how many damaged models are tried (1500).

#include "../fuzz/fuzz.cpp"
#include "heap.h"
#include "support.h"

namespace tests {
namespace {

// ---- what may be done to a file

constexpr std::uint64_t kNumbers[] = {
    0,          1,          2,          31,          33,         0x7F,       0x80,       0xFFFF,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 1ull << 40, 1ull << 62, 1ull << 63, (1ull << 63) - 1,
    ~0ull,      ~0ull - 31};
const char* const kValues[] = {"0",
                               "-1",
                               "1",
                               "3",
                               "1.5",
                               "1e308",
                               "-1e308",
                               "1e-308",
                               "1e999",
                               "65537",
                               "7e9",
                               "262144",
                               "2147483647",
                               "4294967296",
                               "9007199254740993",
                               "18446744073709551615",
                               "1e20",
                               "null",
                               "true",
                               "false",
                               "\"\"",
                               "\"x\"",
                               "[]",
                               "{}",
                               "[[]]",
                               "\"\\u0000\"",
                               "\"\\ud800\"",
                               "\"../../etc/passwd\"",
                               "nan",
                               "",
                               "[1,2",
                               "0x10"};

void flip_bits(std::string& s, Random& random) {
    const std::size_t range = random.below(2) ? s.size() : std::min<std::size_t>(s.size(), 4096);
    for (std::size_t n = 1 + random.below(16u); n > 0 && range > 0; --n) {
        char& c = s[random.below(range)];
        c = static_cast<char>(c ^ 1 << random.below(8));
    }
}

// A number of 4 or 8 bytes, most often one that is there and small: those are counts, sizes, types and offsets.
void set_number(std::string& s, Random& random) {
    if (s.size() < 16) return;
    std::size_t at = random.below(s.size() - 8);
    for (int tries = 0; tries < 200; ++tries) {
        if (s[at] != 0 && s[at + 2] == 0 && s[at + 3] == 0) break;
        at = random.below(s.size() - 8);
    }
    std::uint64_t value = random.of(kNumbers);
    if (random.below(4u) == 0) value = s.size() + random.below(3u) - 1;
    if (random.below(4u) == 0) value = static_cast<unsigned char>(s[at]) + random.below(3u) - 1;
    std::memcpy(&s[at], &value, random.below(2) ? 8 : 4);
}

void cut(std::string& s, Random& random) { s.resize(random.below(s.size())); }

void grow(std::string& s, Random& random) { s.append(random.below(300u), static_cast<char>(random.below(256))); }

void copy_over(std::string& s, Random& random) {  // one piece over another, or in between
    const std::string piece = s.substr(random.below(s.size()), random.below(random.below(2) ? 16u : 600u));
    const std::size_t at = random.below(s.size());
    s.replace(at, random.below(2) ? std::min(piece.size(), s.size() - at) : 0, piece);
}

void remove_piece(std::string& s, Random& random) { s.erase(random.below(s.size()), random.below(40u)); }

void poison(std::string& s, Random& random) {  // as weights: NaN, infinity, the largest, the smallest
    static constexpr unsigned char kBytes[] = {0xFF, 0x7F, 0x7C, 0x80, 0x00, 0xFC};
    const std::size_t at = random.below(s.size());
    const std::size_t n = std::min(s.size() - at, std::size_t{1} << random.below(15));
    std::fill_n(s.begin() + static_cast<std::ptrdiff_t>(at), n, static_cast<char>(random.of(kBytes)));
}

// The end of the JSON value that begins at s[at].
std::size_t value_end(const std::string& s, std::size_t at) {
    int depth = 0;
    bool in_string = false;
    for (; at < s.size(); ++at) {
        const char c = s[at];
        if (in_string) {
            at += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            ++depth;
        } else if (c == ']' || c == '}' || c == ',') {
            if (depth == 0) break;
            depth -= c != ',';
            if (depth == 0 && c != ',') return at + 1;
        }
    }
    return std::min(at, s.size());
}

// A place where a value begins: after a colon, a comma or an opening bracket.
std::size_t value_begin(const std::string& s, Random& random) {
    const std::size_t at = s.find_first_of(":,[", random.below(s.size()));
    return at == s.npos ? 0 : at + 1;
}

void change_value(std::string& s, Random& random) {
    const std::size_t at = value_begin(s, random);
    s.replace(at, value_end(s, at) - at, random.of(kValues));
}

void nest(std::string& s, Random& random) {
    const std::size_t at = value_begin(s, random), depth = random.below(3u) ? 1000000u : 63u + random.below(4u);
    std::string deep;
    for (std::size_t i = 0; i < depth; ++i) deep += random.below(2) ? "[" : "{\"\":";
    if (random.below(2)) deep = std::string(depth, '[') + std::string(depth, ']');
    s.replace(at, value_end(s, at) - at, deep);
}

void repeat_member(std::string& s, Random& random) {  // the same key again, perhaps with another value
    const std::size_t colon = s.find("\":", random.below(s.size()));
    if (colon == s.npos || colon == 0) return;
    const std::size_t key = s.rfind('"', colon - 1);
    if (key == s.npos) return;
    const std::string name = s.substr(key, colon + 2 - key);
    const std::size_t end = value_end(s, colon + 2);
    s.insert(end, "," + name + (random.below(2) ? s.substr(colon + 2, end - colon - 2) : random.of(kValues)));
}

// An offset or a size as another one of the same text has it: tensors that overlap, shapes that do not fit.
void repeat_number(std::string& s, Random& random) {
    const auto number = [&](std::size_t& begin) {
        begin = std::min(s.find_first_of("0123456789", random.below(s.size())), s.size());
        return s.substr(begin, std::min(s.find_first_not_of("0123456789", begin), s.size()) - begin);
    };
    std::size_t from, to;
    const std::string a = number(from), b = number(to);
    s.replace(to, b.size(), a);
}

using Change = void (*)(std::string&, Random&);
const Change kBinary[] = {flip_bits, set_number, set_number,   set_number, cut,
                          grow,      copy_over,  remove_piece, poison,     poison};
const Change kText[] = {flip_bits,    cut,          copy_over,     remove_piece,  change_value, change_value,
                        change_value, change_value, repeat_member, repeat_number, repeat_number};

void damage(const std::string& name, std::string& bytes, Random& random) {
    if (bytes.empty()) return;
    const bool weights = name.find(".safetensors") != name.npos && name.find(".json") == name.npos;
    if (weights && bytes.size() > 8 && random.below(3)) {  // the header, and its length is right again
        const std::size_t length = static_cast<std::size_t>(detail::load_as<std::uint64_t>(bytes.data()));
        if (length > bytes.size() - 8 || length == 0) return;
        std::string header = bytes.substr(8, length);
        (random.below(60) ? random.of(kText) : nest)(header, random);
        bytes = raw(std::uint64_t{header.size()}) + header + bytes.substr(8 + length);
    } else if (weights || name.find(".gguf") != name.npos) {
        const bool header = random.below(2) && bytes.size() > 8192;
        std::string tail = header ? bytes.substr(8192) : "";
        if (header) bytes.resize(8192);
        random.of(kBinary)(bytes, random);
        bytes += tail;
    } else {
        (random.below(60) ? random.of(kText) : nest)(bytes, random);
    }
}

long long rounds() {
    const char* wanted = std::getenv("LLM_ROUNDS");
    return wanted ? std::atoll(wanted) : 1500;
}

TEST_CASE("a damaged model ends in an Error or runs, within bounds") {
    const Files sound[] = {directory_of(false),
                           directory_of(true),
                           directory_of(true, true),
                           directory_with_vocab_json(),
                           {{"model.gguf", small_gguf(false).bytes()}},
                           {{"model.gguf", small_gguf(true).bytes()}}};
    int refused = 0, ran = 0;
    std::string error;
    error.reserve(1 << 16);  // so that it is not counted
    for (long long round = 0; round < rounds(); ++round) {
        CAPTURE(round);
        Random random{static_cast<std::uint64_t>(round)};
        Files files = random.of(sound);
        for (std::size_t n = 1 + random.below(3u); n > 0; --n) {
            auto file = files.begin();
            std::advance(file, static_cast<std::ptrdiff_t>(random.below(files.size())));
            damage(file->first, file->second, random);
            if (random.below(100) == 0) files.erase(file);
            if (files.empty()) break;
        }
        const TemporaryDirectory directory;
        write_files(directory.path, files);
        const bool single = files.count("model.gguf") || files.empty();
        const DType dtype = kAllDTypes[random.below(4)];
        Heap::peak = Heap::live.load();
        const long long before = Heap::live;
        error.assign(
            std::string_view(fuzz::refusal((single ? directory.path / "model.gguf" : directory.path).string(), dtype)));
        ++(error.empty() ? ran : refused);
        if (!error.empty() && error.find(directory.path.string()) == error.npos)
            CHECK_MESSAGE(error.find("tokens after") != error.npos,
                          error << " names no file");  // it loaded, and is small
        CHECK(Heap::peak - before < 200 << 20);
        CHECK(Heap::live == before);
    }
    CHECK(refused > ran / 2);
    CHECK(ran > 0);
    MESSAGE(refused << " of " << rounds() << " damaged models were refused, " << ran << " ran");
}

TEST_CASE("the models that the damage is done to are sound") {
    const Files directories[] = {directory_of(false), directory_of(true), directory_of(true, true),
                                 directory_with_vocab_json()};
    for (const Files& files : directories) {
        const TemporaryDirectory directory;
        write_files(directory.path, files);
        CHECK(fuzz::refusal(directory.path.string()) == "");
    }
    for (const bool gemma : {false, true}) {
        const TemporaryDirectory directory;
        write_files(directory.path, {{"model.gguf", small_gguf(gemma).bytes()}});
        CHECK(fuzz::refusal((directory.path / "model.gguf").string(), DType::f32) == "");
    }
}

TEST_CASE("what the fuzzing begins with runs") {
    for (const fuzz::Target& target : fuzz::kTargets)
        for (const std::string& seed : target.seeds()) {
            CAPTURE(std::string(target.name));
            CHECK_NOTHROW(target.run(seed));
        }
}

TEST_CASE("a damaged session is refused or goes on, and a refused one leaves the session as it was") {
    int refused = 0, loaded = 0;
    for (const bool gemma : {false, true}) {
        const fuzz::Saved& good = fuzz::saved(gemma);
        CHECK(good.load(good.bytes));
        for (long long round = 0; round < rounds() / 4; ++round) {
            CAPTURE(round);
            Random random{static_cast<std::uint64_t>(round)};
            std::string bytes = good.bytes;
            if (random.below(2)) {  // a field of the header: version, held, unread, written, model
                const std::uint64_t value = random.of(kNumbers);
                std::memcpy(&bytes[8 + 4 * random.below(6u)], &value, 4);
            } else if (random.below(2)) {  // a token
                const std::uint64_t value = random.of(kNumbers);
                std::memcpy(&bytes[32 + 4 * random.below(6u)], &value, 4);
            } else {
                random.of(kBinary)(bytes, random);
            }
            const long long before = Heap::live;
            Heap::peak = before;
            ++(good.load(bytes) ? loaded : refused);
            CHECK(Heap::live == before);
            CHECK(Heap::peak - before < 20 << 20);
        }
    }
    CHECK(refused > 0);
    CHECK(loaded > 0);
    MESSAGE(refused << " damaged sessions were refused, " << loaded << " were loaded");
}

TEST_CASE("a model that was cut off is refused at every length") {
    const std::string whole = small_gguf(true).bytes();
    const TemporaryDirectory directory;
    const fs::path path = directory.path / "model.gguf";
    for (std::size_t n = 0; n < whole.size(); n += n < 700 ? 1 : whole.size() / 150) {
        CAPTURE(n);
        write_file(path, whole.substr(0, n));
        CHECK_ERROR(load(path), path.string());
    }
    Files files = directory_of(false);
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
        const std::string good = files[name];
        for (std::size_t n = 0; n < good.size(); n += 1 + good.size() / 150) {
            write_file(directory.path / "config.json", files["config.json"]);
            write_file(directory.path / "tokenizer.json", files["tokenizer.json"]);
            write_file(directory.path / "model.safetensors", files["model.safetensors"]);
            write_file(directory.path / name, good.substr(0, n));
            CAPTURE(name);
            CAPTURE(n);
            CHECK_ERROR(load(directory.path), directory.path.string());
        }
    }
}

// Counts in a GGUF's header that would take terabytes, each in place of a small one.
TEST_CASE("counts that need more than the file has are refused before memory is asked for") {
    const std::string whole = small_gguf(false).bytes();
    const TemporaryDirectory directory;
    const fs::path path = directory.path / "model.gguf";
    const std::size_t tokens = whole.find("tokenizer.ggml.tokens") + 21 + 8,
                      first = whole.find("blk.0.attn_qkv.weight") + 21 + 4;
    for (const std::size_t at :
         {std::size_t{8}, std::size_t{16}, std::size_t{24}, tokens, tokens + 8, first, first + 8})
        for (const std::uint64_t count : kNumbers) {
            std::string file = whole;
            if (std::memcmp(&file[at], &count, sizeof count) == 0) continue;
            std::memcpy(&file[at], &count, sizeof count);
            write_file(path, file);
            CAPTURE(at);
            CAPTURE(count);
            const long long before = Heap::live;
            Heap::peak = before;
            CHECK(error_of([&] { load(path); }) != "");
            CHECK(Heap::peak - before < 20 << 20);
        }
}

// Infinity and NaN are found while loading; numbers that are merely huge may also be too large for Q8_0 or the KV cache.
TEST_CASE("weights that are no numbers are refused, and huge ones run without undefined behaviour") {
    for (const bool gemma : {false, true})
        for (const int bits : {0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0x0001, 0x7F80, 0x7FC0}) {
            Files files = directory_of(gemma);
            std::string& bytes = files["model.safetensors"];
            const std::size_t data = 8 + static_cast<std::size_t>(detail::load_as<std::uint64_t>(bytes.data()));
            for (std::size_t at = data; at + 2 <= bytes.size(); at += 2 * 7) std::memcpy(&bytes[at], &bits, 2);
            const TemporaryDirectory directory;
            write_files(directory.path, files);
            const float value =
                gemma ? detail::bf16_to_f32(std::uint16_t(bits)) : detail::f16_to_f32(std::uint16_t(bits));
            CAPTURE(value);
            CHECK((fuzz::refusal(directory.path.string(), DType::f32) == "") == std::isfinite(value));
            const std::string error = error_of([&] { load(directory.path); });
            if (!std::isfinite(value)) CHECK(error.find("infinite") != std::string::npos);
            fuzz::refusal(directory.path.string(), DType::q8_0);
        }
}

// Tokens chosen to fall on one place of the hash table would make a table without a bound take for ever.
TEST_CASE("a vocabulary made to collide is refused") {
    const auto place = [](const std::string& spelling) { return detail::Vocabulary::hash(spelling) >> 52; };
    SmallTokenizer t(false, 300);
    const std::size_t before = t.tokens.size(), wanted = before + 600;
    for (int i = 0; t.tokens.size() < wanted; ++i)
        if (const std::string s = std::to_string(i) + "x"; place(s) == 7) t.tokens.push_back(s), t.kinds.push_back(1);
    Files files = directory_of(false);
    files["tokenizer.json"] = tokenizer_json(t, false);
    const TemporaryDirectory directory;
    write_files(directory.path, files);
    CHECK_ERROR(load(directory.path), "too many of its tokens look alike");
    t.tokens.resize(before + 60), t.kinds.resize(before + 60);  // some may
    write_file(directory.path / "tokenizer.json", tokenizer_json(t, false));
    CHECK_ERROR(load(directory.path), "the tokenizer does not fit the model");
}

TEST_CASE("what is not among tokens that fill a long row of the table is not found") {
    const auto place = [](const std::string& spelling) { return usize(detail::Vocabulary::hash(spelling) >> 53); };
    detail::Vocabulary vocabulary;
    std::vector<bool> filled(2048);
    for (int i = 0; vocabulary.size() < 762; ++i) {  // each in its own place, 100 to 861
        const std::string s = std::to_string(i);
        if (place(s) < 100 || place(s) > 861 || filled[place(s)]) continue;
        filled[place(s)] = true;
        vocabulary.tokens.push_back({s, detail::TokenKind::normal});
    }
    vocabulary.index("a test");
    for (int id = 0; id < vocabulary.size(); ++id) CHECK(vocabulary.find(vocabulary[id].spelling) == id);
    for (int i = 0, looked_for = 0; looked_for < 1000; ++i)
        if (const std::string s = std::to_string(i) + "x"; place(s) >= 100 && place(s) < 110) {
            CHECK(vocabulary.find(s) == -1);
            ++looked_for;
        }
}

}  // namespace
}  // namespace tests
