// build/fuzz: what strangers send, read by llm.h under libFuzzer; `make fuzz` runs all targets. FUZZ_TARGET names one:
//
//     safetensors   the weights of a directory whose other files are good
//     gguf          a whole model
//     tokenizer     tokenizer.json beside good weights
//     config        config.json beside good weights
//     session       the file of a saved session, with a sum that is right
//     text          a text for both families' tokenizers, which must come back from its tokens byte by byte
//
// A directory on the command line gets the target's seeds before it is read. The tests of damaged files use the targets
// as well.

#include "../tests/small_models.h"

namespace fuzz {

using namespace tests;

// What may happen to a model from a stranger: an Error, whose text is returned, or it runs.
inline std::string refusal(const std::string& path, llm::DType dtype = llm::DType::native) {
    try {
        llm::LoadOptions options;
        options.threads = 1;
        options.dtype = dtype;
        const llm::Model model = llm::Model::load(path, options);
        llm::Session session(model, std::min(16, model.config().context_length), 1);
        llm::GenerateOptions generate;
        generate.max_tokens = 4;
        generate.sampling.repeat_penalty = 1.1f;
        llm::generate(session, "To be\n", generate, nullptr);
        session.rewind(1);
        const int last = model.config().vocab_size - 1;
        session.forward(&last, 1);
        return "";
    } catch (const llm::Error& error) {
        return error.what();
    }
}

inline void check_text(const llm::Tokenizer& tokenizer, std::string_view text, bool special, bool gemma) {
    const std::vector<int> ids = tokenizer.encode(text, special ? llm::Special::parsed : llm::Special::as_text, false);
    const std::string expected = gemma ? detail::replace_all(text, "\xE2\x96\x81", " ") : std::string(text);
    if (tokenizer.decode(ids) != expected) throw std::logic_error("the text is not what its tokens decode to");
}

struct Target {
    const char* name;
    void (*run)(const std::string& bytes);
    std::vector<std::string> (*seeds)();
};

// One file of a directory is what came in, its neighbours are good; of both families.
template <bool Gemma> void run_in_directory(const std::string& file, const std::string& bytes) {
    static const TemporaryDirectory directory;
    static const Files files = directory_of(Gemma);
    static const bool written = [] {
        for (const auto& [name, good] : files) write_file(directory.path / name, good);
        return true;
    }();
    (void)written;
    write_file(directory.path / file, bytes);
    refusal(directory.path.string());
    write_file(directory.path / file, files.at(file));
}
inline void run_in_directories(const std::string& file, const std::string& bytes) {
    run_in_directory<false>(file, bytes);
    run_in_directory<true>(file, bytes);
}
inline std::vector<std::string> both(const std::string& file) {
    return {directory_of(false).at(file), directory_of(true).at(file)};
}

inline void run_gguf(const std::string& bytes) {
    static const TemporaryDirectory directory;
    const fs::path path = directory.path / "model.gguf";
    write_file(path, bytes);
    refusal(path.string(), static_cast<llm::DType>(bytes.size() % 4));
}

// Makes the sum at the end of a session's file right, whatever is in it, as someone would who knows how.
inline void sign(std::string& file) {
    if (file.size() < 8) return;
    const std::uint64_t sum = detail::hash(0, file.data(), file.size() - 8);
    std::memcpy(&file[file.size() - 8], &sum, sizeof sum);
}

// A small model in memory, and a session of it that holds some text.
struct Saved {
    TemporaryDirectory directory;
    llm::Model model;
    std::string bytes;

    explicit Saved(bool gemma) {
        for (const auto& [name, file] : directory_of(gemma)) write_file(directory.path / name, file);
        llm::LoadOptions options;
        options.threads = 1;
        model = llm::Model::load(directory.path.string(), options);
        llm::Session session(model, 0, 1);
        llm::GenerateOptions generate;
        generate.max_tokens = 5;
        generate.ignore_end = true;
        llm::generate(session, "To be", generate, nullptr);
        session.save(file());
        bytes = read_file(file());
    }
    std::string file() const { return (directory.path / "session").string(); }

    // True if the session could be loaded; it goes on in any case.
    bool load(std::string changed) const {
        sign(changed);
        write_file(file(), changed);
        llm::Session session(model, 0, 1);
        bool loaded = true;
        try {
            session.load(file());
        } catch (const llm::Error&) {
            loaded = false;
        }
        llm::GenerateOptions generate;
        generate.max_tokens = 3;
        try {
            llm::generate(session, "be", generate, nullptr);
        } catch (const llm::Error&) {  // it may be full
        }
        session.rewind(session.position() / 2);
        session.rewind(0);
        const int token = 1;
        session.forward(&token, 1);
        return loaded;
    }
};

inline const Saved& saved(bool gemma) {
    static const Saved gpt2(false), with_ring(true);
    return gemma ? with_ring : gpt2;
}

inline void run_text(const std::string& bytes) {
    static const auto load = [](const std::string& path) { return llm::Model::load(path).tokenizer(); };
    static const llm::Tokenizer gpt2 = load(tiny("gpt2-tiny")), gemma = load(tiny("gemma3-tiny"));
    for (const bool special : {false, true}) {
        check_text(gpt2, bytes, special, false);
        check_text(gemma, bytes, special, true);
    }
}

inline std::vector<std::string> small_ggufs() { return {small_gguf(false).bytes(), small_gguf(true).bytes()}; }

inline std::vector<std::string> saved_sessions() { return {saved(false).bytes, saved(true).bytes}; }

inline const Target kTargets[] = {
    {"safetensors", [](const std::string& b) { run_in_directories("model.safetensors", b); },
     [] { return both("model.safetensors"); }},
    {"gguf", run_gguf, small_ggufs},
    {"tokenizer", [](const std::string& b) { run_in_directories("tokenizer.json", b); },
     [] { return both("tokenizer.json"); }},
    {"config", [](const std::string& b) { run_in_directories("config.json", b); }, [] { return both("config.json"); }},
    {"session",
     [](const std::string& b) {
         for (const bool gemma : {false, true}) saved(gemma).load(b);
     },
     saved_sessions},
    {"text", run_text,
     [] {
         return std::vector<std::string>{"To be, or not to be: I'll say 'tis  nobler\n\n\t1603 \xE2\x96\x81\xC3\xA9 ",
                                         "<bos><start_of_turn>user\n<|endoftext|>\xFF\xE2\x96<0x41>"};
     }},
};

inline const Target& target(const std::string& name) {
    for (const Target& t : kTargets)
        if (name == t.name) return t;
    throw std::runtime_error("FUZZ_TARGET: '" + name +
                             "' is none of safetensors, gguf, tokenizer, config, session, text");
}

}  // namespace fuzz

#ifdef LLM_FUZZER  // `make fuzz` defines it

namespace {
const fuzz::Target& chosen() {
    static const fuzz::Target& t = fuzz::target(std::getenv("FUZZ_TARGET") ? std::getenv("FUZZ_TARGET") : "");
    return t;
}
}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    for (int i = 1; i < *argc; ++i)
        if (std::filesystem::is_directory((*argv)[i])) {
            int n = 0;
            for (const std::string& seed : chosen().seeds())
                tests::write_file(std::filesystem::path((*argv)[i]) / ("seed-" + std::to_string(n++)), seed);
        }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    chosen().run(std::string(reinterpret_cast<const char*>(data), size));
    return 0;
}

#endif
