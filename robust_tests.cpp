// What must not break: damaged models, no memory, no threads, files that change, callbacks that throw, wrong calls.
// The end of test.cpp (`build/test -ts=robust` runs these alone). Models are those of fuzz.cpp, a few kilobytes each, and the two of models/.
//
//     LLM_ROUNDS    how many damaged models are tried (1500)

#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#include "fuzz.cpp"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>

// ==== MEMORY, COUNTED AND REFUSED ====================================================================================
//
// Not under the thread sanitizer, which has its own operator new: there, Heap::live stays 0 and nothing is refused.

namespace robust {

struct Heap {
    static inline std::atomic<long long> live{0}, peak{0};   // bytes
    static inline std::atomic<long long> until_failure{-1};  // the allocation after that many fails; -1: none
    static inline std::atomic<bool> failed{false};

    static void* allocate(std::size_t bytes, std::size_t alignment) {
        if (until_failure >= 0 && until_failure-- == 0) {
            until_failure = -1;
            failed = true;
            throw std::bad_alloc();
        }
        void* p = alignment > alignof(std::max_align_t)
                      ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
                      : std::malloc(bytes ? bytes : 1);
        if (!p) throw std::bad_alloc();
        const long long now = live += static_cast<long long>(malloc_usable_size(p));
        for (long long before = peak; before < now && !peak.compare_exchange_weak(before, now);) continue;
        return p;
    }
    static void release(void* p) {
        if (!p) return;
        live -= static_cast<long long>(malloc_usable_size(p));
        std::free(p);
    }
};

}  // namespace robust

#if !LLM_TSAN
// All forms, as a sanitizer brings its own of those that are left out.
using Alignment = std::align_val_t;
void* operator new(std::size_t n) { return robust::Heap::allocate(n, 1); }
void* operator new[](std::size_t n) { return robust::Heap::allocate(n, 1); }
void* operator new(std::size_t n, Alignment a) { return robust::Heap::allocate(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, Alignment a) { return robust::Heap::allocate(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
    try {
        return robust::Heap::allocate(n, 1);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void* operator new[](std::size_t n, const std::nothrow_t& nothrow) noexcept { return operator new(n, nothrow); }
void operator delete(void* p) noexcept { robust::Heap::release(p); }
void operator delete[](void* p) noexcept { robust::Heap::release(p); }
void operator delete(void* p, std::size_t) noexcept { robust::Heap::release(p); }
void operator delete[](void* p, std::size_t) noexcept { robust::Heap::release(p); }
void operator delete(void* p, Alignment) noexcept { robust::Heap::release(p); }
void operator delete[](void* p, Alignment) noexcept { robust::Heap::release(p); }
void operator delete(void* p, std::size_t, Alignment) noexcept { robust::Heap::release(p); }
void operator delete[](void* p, std::size_t, Alignment) noexcept { robust::Heap::release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { robust::Heap::release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { robust::Heap::release(p); }
#endif

TEST_SUITE_BEGIN("robust");

namespace robust {
namespace {

namespace fs = std::filesystem;
using fuzz::Files, fuzz::Scratch, llm::DType, llm::Model, llm::Session, llm::detail::usize;

// ==== HELPERS ========================================================================================================

const fs::path& models() {
    static const fs::path found = [] {
        for (fs::path p = fs::read_symlink("/proc/self/exe").parent_path(); p != p.root_path(); p = p.parent_path())
            if (fs::exists(p / "llm.h")) return p / "models";
        return fs::path("models");
    }();
    return found;
}

struct Random {
    std::uint64_t state;
    std::size_t below(std::size_t n) { return n ? static_cast<std::size_t>(llm::detail::next_random(state) % n) : 0; }
    template <class Items> const auto& of(const Items& items) { return items[below(std::size(items))]; }
};

void write(const fs::path& directory, const Files& files) {
    for (const auto& [name, bytes] : files) fuzz::write_file(directory / name, bytes);
}

Model load(const fs::path& path, int threads = 1, DType dtype = DType::q8_0) {
    llm::LoadOptions options;
    options.threads = threads;
    options.dtype = dtype;
    return Model::load(path.string(), options);
}
Model tiny(const char* name, int threads = 1) { return load(models() / name, threads); }
const char* const kTiny[] = {"gpt2-tiny", "gemma3-tiny"};

std::string greedy(Session& session, std::string_view prompt, int count) {
    llm::GenerateOptions options;
    options.max_tokens = count;
    options.sampling.temperature = 0;
    std::string text;
    llm::generate(session, prompt, options, [&](std::string_view piece) {
        text += piece;
        return true;
    });
    return text;
}

int threads_running() {
#if LLM_TSAN  // it adds one of its own to a program's first
    static const bool added = (std::thread([] {}).join(), true);
    (void)added;
#endif
    int n = 0;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) n += !task.path().empty();
    return n;
}
// The system lists a thread for a moment after it was joined.
bool threads_are(int expected) {
    for (int i = 0; i < 2000 && threads_running() != expected; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return threads_running() == expected;
}

// What the call throws: an Error's text; "" for nothing. All else goes through.
template <class Call> std::string error_of(const Call& call) {
    try {
        call();
    } catch (const llm::Error& e) {
        return e.what();
    }
    return "";
}

// That a call throws an Error which says all this.
#define CHECK_ERROR(call, ...)                                                        \
    do {                                                                              \
        const std::string robust_error = error_of([&] { (void)(call); });             \
        CHECK(robust_error != "");                                                    \
        for (const std::string& robust_part : std::vector<std::string>{__VA_ARGS__})  \
            CHECK_MESSAGE(robust_error.find(robust_part) != robust_error.npos,        \
                          "\"" << robust_error << "\" does not say " << robust_part); \
    } while (false)

// Runs the call in a process of its own; what it returns comes back.
template <class Call> int in_child(const Call& call) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int code = 100;
        try {
            code = call();
        } catch (...) {
        }
        _exit(code);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// ==== DAMAGED MODELS =================================================================================================

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
    for (std::size_t n = 1 + random.below(16); n > 0 && range > 0; --n) {
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
    if (random.below(4) == 0) value = s.size() + random.below(3) - 1;
    if (random.below(4) == 0) value = static_cast<unsigned char>(s[at]) + random.below(3) - 1;
    std::memcpy(&s[at], &value, random.below(2) ? 8 : 4);
}

void cut(std::string& s, Random& random) { s.resize(random.below(s.size())); }

void grow(std::string& s, Random& random) { s.append(random.below(300), static_cast<char>(random.below(256))); }

void copy_over(std::string& s, Random& random) {  // one piece over another, or in between
    const std::string piece = s.substr(random.below(s.size()), random.below(random.below(2) ? 16 : 600));
    const std::size_t at = random.below(s.size());
    s.replace(at, random.below(2) ? std::min(piece.size(), s.size() - at) : 0, piece);
}

void remove_piece(std::string& s, Random& random) { s.erase(random.below(s.size()), random.below(40)); }

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
    const std::size_t at = value_begin(s, random), depth = random.below(3) ? 1000000 : 63 + random.below(4);
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
        const std::size_t length = static_cast<std::size_t>(llm::detail::load_as<std::uint64_t>(bytes.data()));
        if (length > bytes.size() - 8 || length == 0) return;
        std::string header = bytes.substr(8, length);
        (random.below(60) ? random.of(kText) : nest)(header, random);
        bytes = fuzz::raw(std::uint64_t{header.size()}) + header + bytes.substr(8 + length);
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
    const Files sound[] = {fuzz::directory_of(models(), false),           fuzz::directory_of(models(), true),
                           fuzz::directory_of(models(), true, true),      fuzz::directory_with_vocab_json(models()),
                           {{"model.gguf", fuzz::gguf(models(), false)}}, {{"model.gguf", fuzz::gguf(models(), true)}}};
    int refused = 0, ran = 0;
    for (long long round = 0; round < rounds(); ++round) {
        CAPTURE(round);
        Random random{static_cast<std::uint64_t>(round)};
        Files files = random.of(sound);
        for (std::size_t n = 1 + random.below(3); n > 0; --n) {
            auto file = files.begin();
            std::advance(file, static_cast<std::ptrdiff_t>(random.below(files.size())));
            damage(file->first, file->second, random);
            if (random.below(100) == 0) files.erase(file);
            if (files.empty()) break;
        }
        const Scratch scratch;
        write(scratch.path, files);
        const bool single = files.count("model.gguf") || files.empty();
        const DType dtype = random.below(2) ? DType::q8_0 : DType::f32;
        Heap::peak = Heap::live.load();
        const long long before = Heap::live;
        ++(fuzz::runs((single ? scratch.path / "model.gguf" : scratch.path).string(), dtype) ? ran : refused);
        CHECK(Heap::peak - before < 200 << 20);
        CHECK(Heap::live == before);
    }
    CHECK(refused > ran / 2);
    CHECK(ran > 0);
    MESSAGE(refused << " of " << rounds() << " damaged models were refused, " << ran << " ran");
}

TEST_CASE("the models that the damage is done to are sound") {
    const Files directories[] = {fuzz::directory_of(models(), false), fuzz::directory_of(models(), true),
                                 fuzz::directory_of(models(), true, true), fuzz::directory_with_vocab_json(models())};
    for (const Files& files : directories) {
        const Scratch scratch;
        write(scratch.path, files);
        CHECK(error_of([&] { load(scratch.path); }) == "");
        CHECK(fuzz::runs(scratch.path.string()));
    }
    for (const bool gemma : {false, true}) {
        const Scratch scratch;
        write(scratch.path, {{"model.gguf", fuzz::gguf(models(), gemma)}});
        CHECK(error_of([&] { load(scratch.path / "model.gguf"); }) == "");
        CHECK(fuzz::runs((scratch.path / "model.gguf").string(), DType::f32));
    }
}

// testdata/finds/TARGET-anything: inputs at which the fuzzer, or a reader, once broke something.
TEST_CASE("what the fuzzer found stays mended") {
    int finds = 0;
    const fs::path directory = models().parent_path() / "testdata" / "finds";
    if (fs::exists(directory))
        for (const auto& find : fs::directory_iterator(directory)) {
            const std::string name = find.path().filename().string();
            CAPTURE(name);
            fuzz::target(name.substr(0, name.find('-'))).run(models(), fuzz::read_file(find.path()));
            ++finds;
        }
    for (const fuzz::Target& target : fuzz::kTargets)
        for (const std::string& seed : target.seeds(models())) target.run(models(), seed);
    MESSAGE(finds << " finds");
}

TEST_CASE("a damaged session is refused or goes on, and a refused one leaves the session as it was") {
    int refused = 0, loaded = 0;
    for (const bool gemma : {false, true}) {
        const fuzz::Saved& good = fuzz::saved(models(), gemma);
        CHECK(good.load(good.bytes));
        for (long long round = 0; round < rounds() / 4; ++round) {
            CAPTURE(round);
            Random random{static_cast<std::uint64_t>(round)};
            std::string bytes = good.bytes;
            if (random.below(2)) {  // a field of the header: version, held, unread, written, model
                const std::uint64_t value = random.of(kNumbers);
                std::memcpy(&bytes[8 + 4 * random.below(6)], &value, 4);
            } else if (random.below(2)) {  // a token
                const std::uint64_t value = random.of(kNumbers);
                std::memcpy(&bytes[32 + 4 * random.below(6)], &value, 4);
            } else {
                random.of(kBinary)(bytes, random);
            }
            const long long before = Heap::live;
            Heap::peak = before;
            ++(good.load(bytes) ? loaded : refused);
            CHECK(Heap::live == before);
            CHECK(Heap::peak - before < 20 << 20);
        }
        // Any change that does not know the sum is refused.
        Session session(good.model, 0, 1);
        greedy(session, "To be", 4);
        const std::vector<int> tokens = session.tokens();
        for (std::size_t at = 0; at < good.bytes.size(); at += 1 + good.bytes.size() / 200) {
            std::string bytes = good.bytes;
            bytes[at] = static_cast<char>(bytes[at] ^ 4);
            fuzz::write_file(good.file(), bytes);
            CHECK_ERROR(session.load(good.file()), good.file());
            CHECK(session.tokens() == tokens);
        }
    }
    CHECK(refused > 0);
    CHECK(loaded > 0);
    MESSAGE(refused << " damaged sessions were refused, " << loaded << " were loaded");
}

// ---- one damage after the other, and what the Error says

// A directory of the small GPT-2 or Gemma in which `from` becomes `to` in one file.
struct Changed {
    Scratch scratch;
    Changed(bool gemma, const std::string& file, const std::string& from, const std::string& to, bool shards = false) {
        Files files = fuzz::directory_of(models(), gemma, shards);
        std::string& bytes = files.at(file);
        const std::size_t at = bytes.find(from);
        REQUIRE_MESSAGE(at != bytes.npos, from);
        bytes.replace(at, from.size(), to);
        if (file == "model.safetensors") {  // the header's length
            const std::uint64_t length = llm::detail::load_as<std::uint64_t>(bytes.data()) + to.size() - from.size();
            std::memcpy(bytes.data(), &length, sizeof length);
        }
        write(scratch.path, files);
    }
    Model load() const { return robust::load(scratch.path); }
};

TEST_CASE("a configuration that cannot be is refused by name") {
    const auto config = [](bool gemma, const char* from, const char* to) {
        return Changed(gemma, "config.json", from, to);
    };
    CHECK_ERROR(config(false, "\"n_head\":2", "\"n_head\":0").load(), "n_head", "is 0", "config");
    CHECK_ERROR(config(true, "\"num_attention_heads\":2", "\"num_attention_heads\":-3").load(), "num_attention_heads",
                "-3");
    CHECK_ERROR(config(true, "\"num_key_value_heads\":1", "\"num_key_value_heads\":0").load(), "num_key_value_heads");
    CHECK_ERROR(config(true, "\"head_dim\":4", "\"head_dim\":1e9").load(), "head_dim");
    CHECK_ERROR(config(true, "\"hidden_size\":8", "\"hidden_size\":1e300").load(), "hidden_size", "out of range");
    CHECK_ERROR(config(true, "\"intermediate_size\":16", "\"intermediate_size\":262144").load(), "wrong shape",
                "262144");
    CHECK_ERROR(config(false, "\"n_layer\":2", "\"n_layer\":1000").load(), "a tensor is missing", "h.2.");
    CHECK_ERROR(config(true, "\"factor\":8.0", "\"factor\":0").load(), "rope", "not positive");
    CHECK_ERROR(config(true, "\"factor\":8.0", "\"factor\":1e300").load(), "rope_scaling", "out of range");
    CHECK_ERROR(config(true, "sliding_attention\",\"full", "sliding\\u001b[2J\",\"full").load(), "layer_types",
                "sliding?[2J");
    CHECK_ERROR(config(false, "\"gpt2\"", "\"g\\u0007pt3\"").load(), "model_type", "g?pt3");
    CHECK_ERROR(config(false, "{\"model_type\"", std::string(1000000, '[').append("{\"model_type\"").c_str()).load(),
                "nested too deeply", "config.json");
    // The last of several members counts, as in other readers.
    CHECK_ERROR(config(false, "\"n_head\":2", "\"n_head\":2,\"n_head\":0").load(), "n_head", "is 0");
}

TEST_CASE("weights that cannot be are refused by name") {
    const auto header = [](const std::string& from, const std::string& to) {
        return Changed(false, "model.safetensors", from, to);
    };
    const std::string ln_f = "\"transformer.ln_f.weight\":{\"dtype\":\"F16\",\"shape\":[8]";
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"F16\",\"shape\":[9]").load(), "ln_f.weight",
                "shape");
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"F16\",\"shape\":[4294967296,4294967296]").load(),
                "ln_f.weight", "impossible shape");
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"I64\",\"shape\":[8]").load(), "ln_f.weight",
                "type");
    CHECK_ERROR(header("\"transformer.ln_f.weight\"", "\"transformer.ln_f.bias\"").load(), "two tensors are named",
                "ln_f.bias");
    CHECK_ERROR(header("\"data_offsets\":[0,", "\"data_offsets\":[0,99999999,").load(), "data_offsets");
    CHECK_ERROR(header("\"data_offsets\":[0,", "\"data_offsets\":[1000000000000,").load(), "lies outside of the file");
    CHECK_ERROR(header("{", std::string(1000000, '{')).load(), "header", "a key is missing");
    // Two tensors on the same bytes.
    Files files = fuzz::directory_of(models(), false);
    std::string& bytes = files.at("model.safetensors");
    const std::size_t a = bytes.find("data_offsets", bytes.find("ln_f.weight")),
                      b = bytes.find("data_offsets", bytes.find("ln_f.bias"));
    const std::size_t end = bytes.find(']', a);
    REQUIRE(bytes.find(']', b) - b == end - a);
    bytes.replace(b, end - a, bytes.substr(a, end - a));
    const Scratch scratch;
    write(scratch.path, files);
    CHECK_ERROR(load(scratch.path), "overlaps", "ln_f");
}

TEST_CASE("an index may name files of its directory only") {
    const auto index = [](const std::string& name) {
        return Changed(true, "model.safetensors.index.json", "part-1.safetensors", name, true);
    };
    for (const char* name :
         {"../part-1.safetensors", "/etc/passwd", "..", "", "a/b", "a\\\\b", "c:x", "\\u0000", "\\u001b"})
        CHECK_ERROR(index(name).load(), "not a file of the model's directory");
    CHECK_ERROR(index("part-2.safetensors").load(), "a part of the model is missing", "part-2.safetensors");
    CHECK_ERROR(index("part-0.safetensors").load(), "not in its shard");
    CHECK_ERROR(index("model.safetensors.index.json").load(), "no safetensors header");
}

TEST_CASE("a model that was cut off is refused at every length") {
    const std::string whole = fuzz::gguf(models(), true);
    const Scratch scratch;
    const fs::path path = scratch.path / "model.gguf";
    for (std::size_t n = 0; n < whole.size(); n += n < 700 ? 1 : whole.size() / 150) {
        CAPTURE(n);
        fuzz::write_file(path, whole.substr(0, n));
        CHECK(error_of([&] { load(path); }) != "");
    }
    Files files = fuzz::directory_of(models(), false);
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
        const std::string good = files[name];
        for (std::size_t n = 0; n < good.size(); n += 1 + good.size() / 150) {
            fuzz::write_file(scratch.path / "config.json", files["config.json"]);
            fuzz::write_file(scratch.path / "tokenizer.json", files["tokenizer.json"]);
            fuzz::write_file(scratch.path / "model.safetensors", files["model.safetensors"]);
            fuzz::write_file(scratch.path / name, good.substr(0, n));
            CAPTURE(name);
            CAPTURE(n);
            CHECK(error_of([&] { load(scratch.path); }) != "");
        }
    }
}

// Counts in a GGUF's header that would take terabytes, each in place of a small one.
TEST_CASE("counts that need more than the file has are refused before memory is asked for") {
    const std::string whole = fuzz::gguf(models(), false);
    const Scratch scratch;
    const fs::path path = scratch.path / "model.gguf";
    const std::size_t tokens = whole.find("tokenizer.ggml.tokens") + 21 + 8,
                      first = whole.find("blk.0.attn_qkv.weight") + 21 + 4;
    for (const std::size_t at :
         {std::size_t{8}, std::size_t{16}, std::size_t{24}, tokens, tokens + 8, first, first + 8})
        for (const std::uint64_t count : kNumbers) {
            std::string file = whole;
            if (std::memcmp(&file[at], &count, sizeof count) == 0) continue;
            std::memcpy(&file[at], &count, sizeof count);
            fuzz::write_file(path, file);
            CAPTURE(at);
            CAPTURE(count);
            const long long before = Heap::live;
            Heap::peak = before;
            CHECK(error_of([&] { load(path); }) != "");
            CHECK(Heap::peak - before < 20 << 20);
        }
}

TEST_CASE("weights that are no numbers run without undefined behaviour") {
    for (const bool gemma : {false, true})
        for (const int bits : {0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0x0001, 0x7F80, 0x7FC0}) {
            Files files = fuzz::directory_of(models(), gemma);
            std::string& bytes = files["model.safetensors"];
            const std::size_t data = 8 + static_cast<std::size_t>(llm::detail::load_as<std::uint64_t>(bytes.data()));
            for (std::size_t at = data; at + 2 <= bytes.size(); at += 2 * 7) std::memcpy(&bytes[at], &bits, 2);
            const Scratch scratch;
            write(scratch.path, files);
            for (const DType dtype : {DType::f32, DType::q8_0}) CHECK(fuzz::runs(scratch.path.string(), dtype));
        }
}

// Tokens chosen to fall on one place of the hash table would make a table without a bound take for ever.
TEST_CASE("a vocabulary made to collide is refused") {
    const auto place = [](const std::string& text) {
        std::uint64_t h = 0;  // as Vocabulary has it
        for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x9E3779B97F4A7C15u + 0x632BE59B;
        return h >> 56;
    };
    std::vector<std::string> spellings;
    for (int i = 0; spellings.size() < 2000; ++i)
        if (std::string s = std::to_string(i); place(s) == 7) spellings.push_back(s);
    std::vector<llm::detail::Token> tokens;
    for (const std::string& s : spellings) tokens.push_back({s, llm::detail::TokenKind::normal});
    llm::detail::Vocabulary vocabulary;
    CHECK_ERROR(vocabulary.assign(tokens, "here"), "look alike");
}

// ==== THE HOST PROGRAM IS SAFE =======================================================================================

// The small models in a directory, and what a program does with them.
struct Small {
    Scratch scratch;
    explicit Small(bool gemma) { write(scratch.path, fuzz::directory_of(models(), gemma)); }
    Model model(int threads = 2) const { return load(scratch.path, threads); }
    void use(int threads) const {
        const Model m = model(threads);
        Session session(m, 0, threads);
        greedy(session, "To be", 3);
        session.rewind(1);
        Session moved = std::move(session);
        moved.forward_each(std::vector<int>{1, 2, 3}.data(), 3, [](int, const float*) {});
    }
};

TEST_CASE("when memory runs out at any allocation, bad_alloc comes out and nothing stays behind") {
    if (LLM_TSAN) return;
    for (const bool gemma : {false, true})
        for (const int threads : {1, 3}) {
            const Small small(gemma);
            small.use(threads);
            const long long before = Heap::live;
            const int running = threads_running();
            long long failures = 0;
            bool finished = false;
            for (long long n = 0; !finished; n += n < 400 ? 1 : n / (LLM_ASAN ? 60 : 300)) {
                Heap::failed = false;
                Heap::until_failure = n;
                bool thrown = false;
                try {
                    small.use(threads);
                } catch (const std::bad_alloc&) {
                    thrown = true;
                } catch (const llm::Error&) {  // a system call that reports its own lack of memory
                    thrown = true;
                }
                Heap::until_failure = -1;
                finished = !Heap::failed;
                failures += Heap::failed;
                if (thrown == finished || Heap::live != before || !threads_are(running)) {
                    CAPTURE(n);
                    CHECK(thrown != finished);
                    CHECK(Heap::live == before);
                    CHECK(threads_are(running));
                    break;
                }
            }
            CHECK(failures > 150);
        }
}

TEST_CASE("a session that ran out of memory half-way can go on") {
    for (const bool gemma : {false, true}) {
        const Small small(gemma);
        const Model model = small.model();
        const std::vector<int> ids = {5, 6, 7, 8, 9, 10, 11, 12};
        Session expected(model, 0, 2);
        const float* logits = expected.forward(ids.data(), 8);
        const std::vector<float> good(logits, logits + model.config().vocab_size);
        for (int n = 0; n < 40; ++n) {
            Session session(model, 0, 2);
            session.forward(ids.data(), 3);
            Heap::until_failure = n;
            int done = 3;
            try {
                session.forward(ids.data() + 3, 5);
                done = 8;
            } catch (const std::bad_alloc&) {
                done = session.position();
            }
            Heap::until_failure = -1;
            CHECK((done == 3 || done == 8));
            session.rewind(std::min(done, 5));
            done = session.position();
            logits = session.forward(ids.data() + done, 8 - done);
            for (std::size_t i = 0; i < good.size(); ++i) CHECK(logits[i] == doctest::Approx(good[i]).epsilon(1e-3));
        }
    }
}

struct Stop {};  // no std::exception

TEST_CASE("what a callback throws comes out, and the session can go on") {
    { const Small first(true); }  // what is kept from a first use on
    const long long before = Heap::live;
    const int running = threads_running();
    {
        const Small small(true);
        for (int n = 0; n < 30; ++n) {
            llm::LoadOptions options;
            options.threads = 2;
            int calls = 0;
            options.progress = [&](float, const char*) {
                if (calls++ == n) throw Stop();
            };
            if (n < 8) CHECK_THROWS_AS(Model::load(small.scratch.path.string(), options), Stop);
        }
        const Model model = small.model();
        Session session(model, 0, 2), other(model, 0, 2);
        llm::GenerateOptions options;
        options.sampling.temperature = 0;
        options.max_tokens = 4;
        options.ignore_end = true;
        CHECK_THROWS_AS(llm::generate(session, "To", options, [](std::string_view) -> bool { throw Stop(); }), Stop);
        CHECK_THROWS_AS(session.forward_each(std::vector<int>{1, 2, 3}.data(), 3,
                                             [](int i, const float*) {
                                                 if (i == 1) throw Stop();
                                             }),
                        Stop);
        const int held = session.position();
        session.on_timing([](const llm::Timing&) { throw Stop(); });
        CHECK_THROWS_AS(session.forward(std::vector<int>{4}.data(), 1), Stop);
        session.on_timing(nullptr);
        CHECK(session.position() == held + 1);  // reports come when a step is done
        session.rewind(0);
        CHECK(greedy(session, "To be", 6) == greedy(other, "To be", 6));
        // A callback that ends a generation: what it saw last is part of the conversation.
        session.rewind(0);
        other.rewind(0);
        llm::generate(session, "To be", options, [](std::string_view) { return false; });
        session.rewind(0);
        CHECK(greedy(session, "To be", 6) == greedy(other, "To be", 6));
    }
    CHECK(Heap::live == before);
    CHECK(threads_are(running));
}

TEST_CASE("a session may be moved, and outlives its model") {
    for (const char* name : kTiny) {
        Session fresh(tiny(name), 0, 2);
        const std::string expected = greedy(fresh, "ROMEO:", 20);
        auto session = std::make_unique<Session>(tiny(name), 0, 2);  // the Model is gone
        std::string text = greedy(*session, "ROMEO:", 7);
        Session moved = std::move(*session);
        session.reset();
        text += greedy(moved, "", 6);
        Session target(tiny(name), 8, 1);
        target = std::move(moved);
        text += greedy(target, "", 7);
        CHECK(text == expected);
    }
}

TEST_CASE("sessions of one model run in several threads") {
    const Model model = tiny("gemma3-tiny", 2);
    const char* const prompts[] = {"ROMEO:", "JULIET:", "To be", "The king"};
    std::string alone[4], together[4];
    for (int i = 0; i < 4; ++i) {
        Session session(model, 0, 2);
        alone[i] = greedy(session, prompts[i], 24);
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&, i] {
            Session session(model, 0, 2);
            together[i] = greedy(session, prompts[i], 24);
            model.tokenizer().encode(together[i]);
        });
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < 4; ++i) CHECK(together[i] == alone[i]);
}

// A file that becomes shorter while it is loaded is an Error, as nothing is mapped; one that vanishes is still there
// for those who opened it.
TEST_CASE("a file may shrink or vanish while it is read") {
    const int running = threads_running();
    for (const bool vanish : {false, true})
        for (int step = 0; step < 12; ++step) {
            const Small small(true);
            const fs::path path = small.scratch.path / "model.safetensors";
            llm::LoadOptions options;
            options.threads = 2;
            int calls = 0;
            bool opened = false;
            options.progress = [&](float, const char* what) {
                opened = opened || std::string(what) == "tokenizer";  // the weights' file is open by then
                if (calls++ != step) return;
                if (vanish) fs::remove(path);
                else fs::resize_file(path, fs::file_size(path) / 3);
            };
            CAPTURE(step);
            const std::string error = error_of([&] { Model::load(small.scratch.path.string(), options); });
            if (vanish && step > 0) CHECK(error == "");
            if (!vanish && step < 4) CHECK_MESSAGE(error.find(step ? "became shorter" : "") != error.npos, error);
        }
    CHECK(threads_are(running));
}

TEST_CASE("a thread that cannot be created is an Error, and the others end") {
    const Small small(false);
    fs::permissions(small.scratch.path, fs::perms::all);
    const Model model = small.model();
    const int code = in_child([&] {
        // The limit binds an ordinary user; nobody has no other processes here.
        if (getuid() == 0 && setuid(65534) != 0) return 2;
        const int running = threads_running();
        for (const rlim_t processes : {rlim_t{1}, rlim_t{3}}) {
            const rlimit limit = {processes, 100};
            if (setrlimit(RLIMIT_NPROC, &limit) != 0) return 3;
            const std::string error = error_of([&] { Session(model, 0, 8); });
            if (error.find("cannot start a thread") == error.npos || error.find("of 8") == error.npos) return 4;
            if (error_of([&] { load(small.scratch.path, 8); }).find("cannot start a thread") == error.npos) return 5;
            if (!threads_are(running)) return 6;
        }
        Session session(model, 0, 1);
        return greedy(session, "To be", 3).empty() ? 7 : 0;
    });
    if (code == 2 || code == 3) MESSAGE("skipped, this system's limits cannot be set");
    else CHECK(code == 0);
}

TEST_CASE("when the system has no memory, bad_alloc comes out") {
    if (LLM_ASAN || LLM_TSAN) return;  // the sanitizers' own memory is beyond every limit
    llm::Config config = tiny("gemma3-tiny").config();
    config.context_length = 1 << 20;
    const Model model = Model::random(config);
    config.intermediate_size = 1 << 18;
    const int code = in_child([&] {
        std::ifstream statm("/proc/self/statm");
        rlim_t pages = 0;
        statm >> pages;
        const rlimit limit = {pages * 4096 + (80 << 20), RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
        const auto refused = [](const auto& call) {
            try {
                call();
            } catch (const std::bad_alloc&) {
                return true;
            }
            return false;
        };
        for (int i = 0; i < 20; ++i) {  // were anything left behind, the last call would find no memory
            if (!refused([&] { Model::random(config); })) return 3;
            if (!refused([&] { Session(model, 1 << 20, 1); })) return 4;
        }
        const int ids[] = {1, 2, 3};
        return Session(model, 64, 1).forward(ids, 3) ? 0 : 5;
    });
    CHECK(code == 0);
}

TEST_CASE("loading and failing again and again leaves no memory behind") {
    const auto address_space = [] {  // in pages
        std::ifstream statm("/proc/self/statm");
        long long pages = 0;
        statm >> pages;
        return pages;
    };
    Files files = fuzz::directory_of(models(), true);
    std::string& weights = files.at("model.safetensors");
    const std::size_t last = weights.rfind("post_feedforward");
    weights[last] = 'P';  // the last tensor is missing
    const Scratch scratch;
    write(scratch.path, files);
    long long before = 0;
    for (int i = 0; i < 60; ++i) {
        CHECK_ERROR(load(scratch.path, 2), "a tensor is missing");
        if (i == 9) before = address_space();
    }
    CHECK((address_space() - before) * 4096 < 50ll * 64 << 20);  // a chunk of weights takes 64 MB of addresses
}

// ==== NUMBERS ========================================================================================================

TEST_CASE("a text fills the whole context, ends there, and is the same again after a rewind") {
    for (const char* name : kTiny) {
        Session session(tiny(name, 2), 0, 2);
        llm::GenerateOptions options;
        options.max_tokens = -1;
        options.ignore_end = true;
        options.sampling.temperature = 0;
        std::string texts[2];
        for (std::string& text : texts) {
            session.rewind(0);
            const llm::Stats stats = llm::generate(session, "ROMEO:", options, [&](std::string_view piece) {
                text += piece;
                return true;
            });
            CHECK(session.position() == session.context());
            CHECK(stats.prompt_tokens + stats.generated == session.context() + 1);
        }
        CHECK(texts[0] == texts[1]);
        const int one = 5;
        CHECK_ERROR(session.forward(&one, 1), "1 tokens after " + std::to_string(session.context()), "larger context");
        CHECK_ERROR(greedy(session, "more", 5), "do not fit into " + std::to_string(session.context()));
    }
}

TEST_CASE("after a rewind the logits are those of a session that never went further") {
    for (const char* name : kTiny) {
        const Model model = tiny(name, 2);
        const int context = model.config().context_length;
        std::vector<int> ids;
        std::uint64_t state = 3;
        for (int i = 0; i < context; ++i) ids.push_back(static_cast<int>(llm::detail::next_random(state) % 700));
        Session session(model, 0, 2);
        session.forward(ids.data(), context);
        for (const int keep : {context - 1, context / 2, 33, 1}) {
            session.rewind(keep);
            CHECK(session.position() == keep);
            Session fresh(model, 0, 2);
            fresh.forward(ids.data(), keep);
            const int other[] = {9, 8, 7};
            const int n = std::min(3, context - keep);
            const float *a = session.forward(other, n), *b = fresh.forward(other, n);
            float largest = 0;
            for (int i = 0; i < model.config().vocab_size; ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
            CHECK(largest < 0.1f);  // pieces of another size are rounded differently
            session.rewind(0);
            session.forward(ids.data(), context);
        }
    }
}

void check_vocabulary(const llm::Tokenizer& tokenizer) {
    for (int id = 0; id < tokenizer.vocab_size(); ++id) {
        const std::string piece = tokenizer.piece(id);
        const std::vector<int> ids = tokenizer.encode(piece, false, true);
        if (tokenizer.decode(ids) != piece) FAIL("token " << id << " becomes " << tokenizer.decode(ids));
        if (!piece.empty()) tokenizer.encode(piece.substr(0, piece.size() - 1) + "\xFF" + piece);
    }
}

TEST_CASE("every token of a vocabulary comes back from its text") {
    for (const char* name : kTiny) check_vocabulary(tiny(name).tokenizer());
    for (const char* name : {kRealGemma, "gemma-3-270m-hf", "gpt2-124m"})
        if (const fs::path path = real_model(name); !path.empty()) check_vocabulary(load(path, 2).tokenizer());
}

TEST_CASE("logits that are equal, infinite or no numbers can be sampled from") {
    const float inf = INFINITY, values[] = {0.0f, -inf, inf, NAN, -NAN, 3e38f, -3e38f, 1e-40f};
    for (const float first : values)
        for (const float rest : values)
            for (const float temperature : {0.0f, 1e-38f, 0.7f, 1e6f})
                for (const int top_k : {0, 1, 40})
                    for (const float penalty : {1.0f, 1e-6f, 1e6f}) {
                        llm::Sampling options;
                        options.temperature = temperature;
                        options.top_k = top_k;
                        options.repeat_penalty = penalty;
                        options.top_p = top_k ? 0.0f : 1.0f;
                        options.min_p = top_k ? 1.0f : 0.0f;
                        llm::Sampler sampler(options);
                        for (const int id : {0, 3, -1, INT_MAX, INT_MIN}) sampler.accept(id);
                        std::vector<float> logits(50, rest);
                        logits[7] = first;
                        const int id = sampler.sample(logits.data(), 50);
                        CHECK(id >= 0);
                        CHECK(id < 50);
                        if (first == inf && rest != inf && penalty == 1.0f) CHECK(id == 7);
                        CHECK(llm::Sampler(options).sample(&first, 1) == 0);
                    }
    llm::Sampling even;
    even.temperature = 1;
    even.top_k = 0;
    even.top_p = 1;
    even.min_p = 0;
    llm::Sampler sampler(even);
    std::vector<float> logits(10, -5.0f);
    int counts[10] = {};
    for (int i = 0; i < 10000; ++i) ++counts[sampler.sample(logits.data(), 10)];
    for (const int count : counts) CHECK(count == doctest::Approx(1000).epsilon(0.15));
}

#ifdef __x86_64__
// Where they are slow, numbers below 1e-38 are 0 inside of a step; the host program's own arithmetic stays as it was.
TEST_CASE("denormals are flushed in a step and nowhere else") {
    volatile float small = 1e-30f;
    const auto is_flushed = [&] { return small * 1e-10f == 0; };
    for (const int threads : {1, 3}) {
        llm::detail::ThreadPool pool(threads);
        std::atomic<int> flushed{0};
        pool.for_each(100, [&](int) { flushed += is_flushed(); });
        CHECK(flushed == 100);
        CHECK(!is_flushed());
        CHECK_THROWS_AS(pool.for_each(100, [&](int) { throw 1; }), int);
        CHECK(!is_flushed());
    }
    Session session(tiny("gemma3-tiny", 2), 0, 2);
    greedy(session, "To be", 2);
    CHECK(!is_flushed());
}
#endif

// ==== WRONG CALLS ====================================================================================================

TEST_CASE("a wrong call is an Error that says what was asked and what is possible") {
    const Model model = tiny("gpt2-tiny");
    Session session(model, 16);
    const int ids[20] = {1, 2, 3}, low = -1, high = 768;
    const auto nothing = [](int, const float*) {};

    CHECK_ERROR(session.forward(ids, 0), "no tokens", "0", "at least one");
    CHECK_ERROR(session.forward(ids, -5), "no tokens", "-5", "at least one");
    CHECK_ERROR(session.forward(nullptr, 3), "no tokens");
    CHECK_ERROR(session.forward_each(ids, 0, nothing), "no tokens", "at least one");
    CHECK_ERROR(session.forward(ids, 17), "17 tokens after 0", "16", "larger context");
    CHECK_ERROR(session.forward(ids, INT_MAX), std::to_string(INT_MAX), "16");
    CHECK_ERROR(session.forward_each(ids, 17, nothing), "17 tokens after 0", "16");
    CHECK_ERROR(session.forward(&low, 1), "token id", "-1", "0 to 767");
    CHECK_ERROR(session.forward(&high, 1), "token id", "768", "0 to 767");
    CHECK(session.position() == 0);
    session.forward(ids, 3);
    CHECK_ERROR(session.rewind(4), "rewind", "4", "0 to 3");
    CHECK_ERROR(session.rewind(-1), "rewind", "-1", "0 to 3");
    CHECK_ERROR(session.forward(ids, 14), "14 tokens after 3", "16");
    CHECK(session.position() == 3);

    CHECK_ERROR(Session(model, -1), "context size", "-1", "1 to 256");
    CHECK_ERROR(Session(model, 257), "context size", "257", "1 to 256");
    CHECK_ERROR(Session(model, 0, -2), "threads", "-2", "1 to 1024");
    CHECK_ERROR(Session(model, 0, 1025), "threads", "1025", "1 to 1024");
    CHECK_ERROR(model.session_bytes(-1), "context size", "-1");
    CHECK_ERROR(load(models() / "gpt2-tiny", -1), "threads", "-1");
    CHECK_ERROR(Session(Model()), "no model", "Model::load");
    CHECK_ERROR(Model().config(), "no model", "Model::load");

    const llm::Tokenizer& tokenizer = model.tokenizer();
    CHECK_ERROR(tokenizer.piece(-1), "no token -1", "768");
    CHECK_ERROR(tokenizer.piece(768), "no token 768", "768");
    CHECK_ERROR(tokenizer.decode({1, INT_MAX}), std::to_string(INT_MAX));
    CHECK(tokenizer.decode({}) == "");
    CHECK(!tokenizer.is_end(-1));
    CHECK_ERROR(llm::Tokenizer().encode("x"), "no tokenizer");
    CHECK_ERROR(llm::Tokenizer().piece(0), "no token 0");
    CHECK(llm::Tokenizer().vocab_size() == 0);
    CHECK(llm::Tokenizer().bos() == -1);
    CHECK(llm::Tokenizer().find("x") == -1);
    CHECK(!llm::Tokenizer().is_end(0));

    llm::GenerateOptions options;
    options.max_tokens = -2;
    CHECK_ERROR(llm::generate(session, "a", options, nullptr), "max_tokens", "-2", "-1");
    options.max_tokens = 1;
    CHECK_ERROR(llm::generate(session, std::string(5000, 'a'), options, nullptr), "16", "larger context");
    Session random(Model::random(model.config()), 16);
    CHECK_ERROR(llm::generate(random, "a", options, nullptr), "no tokenizer");

    const auto sampler = [](auto set) {
        llm::Sampling s;
        set(s);
        llm::Sampler(s).accept(0);
    };
    CHECK_ERROR(sampler([](auto& s) { s.temperature = -1; }), "temperature", "-1");
    CHECK_ERROR(sampler([](auto& s) { s.temperature = NAN; }), "temperature", "nan");
    CHECK_ERROR(sampler([](auto& s) { s.top_p = 1.5f; }), "top_p", "1.5", "0 to 1");
    CHECK_ERROR(sampler([](auto& s) { s.min_p = -0.5f; }), "min_p", "0 to 1");
    CHECK_ERROR(sampler([](auto& s) { s.top_k = -1; }), "top_k", "-1");
    CHECK_ERROR(sampler([](auto& s) { s.repeat_penalty = 0; }), "repeat_penalty");
    CHECK_ERROR(sampler([](auto& s) { s.repeat_last_n = -1; }), "repeat_last_n", "-1");
    CHECK_ERROR(llm::Sampler().sample(nullptr, 5), "no logits");
    const float one = 1;
    CHECK_ERROR(llm::Sampler().sample(&one, 0), "no logits", "0");
    CHECK_ERROR(llm::Sampler().sample(&one, -3), "no logits", "-3");
}

TEST_CASE("a shape that cannot be is refused") {
    const llm::Config good = tiny("gemma3-tiny").config();
    const auto refused = [&](auto change) {
        llm::Config c = good;
        change(c);
        return error_of([&] { Model::random(c, {}, 1); }) != "";
    };
    CHECK(!refused([](llm::Config&) {}));
    CHECK(refused([](llm::Config& c) { c.num_heads = 0; }));
    CHECK(refused([](llm::Config& c) { c.num_kv_heads = 3; }));
    CHECK(refused([](llm::Config& c) { c.head_dim = 7; }));
    CHECK(refused([](llm::Config& c) { c.head_dim = 1 << 20; }));
    CHECK(refused([](llm::Config& c) { c.hidden_size = -1; }));
    CHECK(refused([](llm::Config& c) { c.hidden_size = INT_MAX; }));
    CHECK(refused([](llm::Config& c) { c.intermediate_size = 1 << 24; }));
    CHECK(refused([](llm::Config& c) { c.vocab_size = INT_MAX; }));
    CHECK(refused([](llm::Config& c) { c.is_local.clear(); }));
    CHECK(refused([](llm::Config& c) { c.num_layers = INT_MAX; }));
}

// A program of 32 bits says that it is too small, before it reads for minutes.
TEST_CASE("a model larger than the address space is refused") {
    llm::detail::Checkpoint file;
    llm::detail::Tensor tensor;
    tensor.shape = {1u << 20, 1u << 12};
    file.path = "huge";
    file.tensors.emplace("wte", tensor);
    llm::LoadOptions options;
    options.dtype = DType::f32;
    detail::ModelData model;
    model.architecture = &detail::kArchitectures[0];
    const std::string error = error_of([&] { llm::detail::load_weights(model, file, options, false, 0); });
    if (sizeof(void*) == 4) CHECK(error.find("32 bits: huge takes 17179 MB") != error.npos);
    else CHECK(error.find("embedding is missing") != error.npos);  // found to be of the wrong kind later
}

}  // namespace
}  // namespace robust

TEST_SUITE_END();
