// Damaged, foreign and hostile files. Each is refused with an llm::Error that names the file and what is wrong with it;
// any other exception fails the test.

#include "scripted_model.h"
#include "support.h"

namespace tests {
namespace {

void check_refused(const fs::path& path, const std::vector<std::string>& parts) {
    const std::string message = error_of([&] { load(path); });
    CAPTURE(message);
    CHECK(message != "");
    CHECK(message.find(path.string()) != std::string::npos);
    for (const std::string& part : parts) {
        CAPTURE(part);
        CHECK(message.find(part) != std::string::npos);
    }
}

// ---- Hugging Face directories

// Changes the header of safetensors, whose length is written before it.
void edit_header(std::string& file, const std::string& from, const std::string& to) {
    const auto length = detail::load_as<std::uint64_t>(file.data());
    const std::string header = replaced(file.substr(8, usize(length)), from, to);
    file = Gguf::raw(std::uint64_t{header.size()}) + header + file.substr(8 + usize(length));
}

struct DirectoryCase {
    const char* what;
    void (*change)(Files&);
    std::vector<std::string> message;
};

template <std::size_t N> void check_refused_directories(const fs::path& original, const DirectoryCase (&cases)[N]) {
    const Files whole = files_of(original);
    for (const DirectoryCase& one : cases) {
        CAPTURE(std::string(one.what));
        const TemporaryDirectory directory;
        Files files = whole;
        one.change(files);
        for (const auto& [name, content] : files) write_file(directory.path / name, content);
        check_refused(directory.path, one.message);
    }
}

// Cases are mostly one text of one file replaced by another.
#define LLM_EDIT(file, from, to) [](Files& f) { f[file] = replaced(f[file], from, to); }
#define LLM_HEADER(from, to) [](Files& f) { edit_header(f["model.safetensors"], from, to); }

TEST_CASE("damaged GPT-2 directories are refused") {
    const DirectoryCase cases[] = {
        {"no config", [](Files& f) { f.erase("config.json"); }, {"config.json"}},
        {"empty config", [](Files& f) { f["config.json"] = ""; }, {"config.json", "an empty file"}},
        {"config cut off", [](Files& f) { f["config.json"].resize(100); }, {"config.json"}},
        {"config nested a million deep", [](Files& f) { f["config.json"] = std::string(1000000, '['); }, {"deep"}},
        {"config a list", [](Files& f) { f["config.json"] = "[]"; }, {"model_type"}},
        {"another architecture", LLM_EDIT("config.json", R"("gpt2")", R"("llama")"), {"model_type", "llama"}},
        {"no architecture", LLM_EDIT("config.json", R"("model_type")", R"("x")"), {"model_type"}},
        {"another activation", LLM_EDIT("config.json", "gelu_new", "relu"), {"activation_function", "relu"}},
        {"heads that do not divide", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": 3)"), {"n_embd"}},
        {"no heads", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": 0)"), {"n_head", "0"}},
        {"negative heads", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": -4)"), {"n_head", "-4"}},
        {"half a head", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": 4.5)"), {"n_head", "4.5"}},
        {"heads as text", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": "4")"), {"config.json"}},
        {"huge width", LLM_EDIT("config.json", R"("n_embd": 128)", R"("n_embd": 1e15)"), {"n_embd", "1e+15"}},
        {"another width",
         LLM_EDIT("config.json", R"("n_embd": 128)", R"("n_embd": 256)"),
         {"wte.weight", "[768, 128]"}},
        {"another context", LLM_EDIT("config.json", R"("n_positions": 256)", R"("n_positions": 512)"), {"wpe.weight"}},
        {"more layers", LLM_EDIT("config.json", R"("n_layer": 4)", R"("n_layer": 5)"), {"h.4.", "missing"}},
        {"scaled by layer",
         LLM_EDIT("config.json", R"("n_ctx": 256)", R"("scale_attn_by_inverse_layer_idx": true)"),
         {"scale_attn_by_inverse_layer_idx"}},
        {"unscaled attention",
         LLM_EDIT("config.json", R"("n_ctx": 256)", R"("scale_attn_weights": "no")"),
         {"scale_attn_weights"}},

        {"no weights", [](Files& f) { f.erase("model.safetensors"); }, {"model.safetensors"}},
        {"empty weights", [](Files& f) { f["model.safetensors"] = ""; }, {"model.safetensors", "an empty file"}},
        {"a Git LFS pointer",
         [](Files& f) { f["model.safetensors"] = "version https://git-lfs.github.com/spec/v1\n"; },
         {"model.safetensors", "Git LFS"}},
        {"header of a terabyte",
         [](Files& f) { f["model.safetensors"].replace(0, 8, Gguf::raw(std::uint64_t{1} << 40)); },
         {"model.safetensors"}},
        {"header beyond the end",
         [](Files& f) { f["model.safetensors"].replace(0, 8, Gguf::raw(f["model.safetensors"].size())); },
         {"model.safetensors"}},
        {"no JSON", LLM_HEADER("{", "<"), {"model.safetensors", "JSON"}},
        {"data cut off", [](Files& f) { f["model.safetensors"].pop_back(); }, {"outside of the file"}},
        {"a type that is none", LLM_HEADER("F16", "F17"), {"type"}},
        {"integers", LLM_HEADER(R"("F16")", R"("I16")"), {"type"}},
        {"another type's size", LLM_HEADER(R"("F16")", R"("F32")"), {"size that is not its shape's"}},
        {"no type", LLM_HEADER(R"("dtype")", R"("d")"), {"lacks dtype"}},
        {"no offsets", LLM_HEADER(R"("data_offsets")", R"("d")"), {"lacks"}},
        {"three offsets", LLM_HEADER(R"("data_offsets":[)", R"("data_offsets":[0,)"), {"lacks"}},
        {"a negative offset", LLM_HEADER(R"("data_offsets":[0,)", R"("data_offsets":[-1,)"), {"model.safetensors"}},
        {"an offset beyond 64 bits",
         LLM_HEADER(R"("data_offsets":[)", R"("data_offsets":[9e30)"),
         {"model.safetensors"}},
        {"shape of two to the 80",
         LLM_HEADER(R"("shape":[)", R"("shape":[1099511627776,1099511627776,)"),
         {"impossible shape"}},
        {"a missing tensor", LLM_HEADER("ln_f.bias", "ln_f.base"), {"ln_f.bias", "missing"}},
        {"a tensor twice", LLM_HEADER("h.0.ln_1.bias", "h.0.ln_2.bias"), {"h.0.ln_2.bias"}},

        {"no tokenizer", [](Files& f) { f.erase("tokenizer.json"); }, {"tokenizer.json"}},
        {"tokenizer cut off", [](Files& f) { f["tokenizer.json"].resize(9999); }, {"tokenizer.json"}},
        {"another kind of tokenizer", LLM_EDIT("tokenizer.json", R"("BPE")", R"("WordPiece")"), {"WordPiece"}},
        {"another normalizer",
         LLM_EDIT("tokenizer.json", R"("normalizer":null)", R"("normalizer":{"type":"NFC"})"),
         {"NFC"}},
        {"another pre-tokenizer", LLM_EDIT("tokenizer.json", "ByteLevel", "Whitespace"), {"Whitespace"}},
        {"an id out of range", LLM_EDIT("tokenizer.json", R"("!":0)", R"("!":4000000000)"), {"out of range"}},
        {"an id twice", LLM_EDIT("tokenizer.json", R"("!":0)", R"("!":1)"), {"same id"}},
        {"no vocabulary", LLM_EDIT("tokenizer.json", R"("vocab")", R"("v")"), {"vocab"}},
        {"an unknown merge", LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["q", "zzz"], )"), {"zzz"}},
        {"a merge with an unknown left side",
         LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["igh", "t"], )"),
         {"igh"}},
        {"a merge with an unknown right side",
         LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["o", "me"], )"),
         {"me"}},
        {"a merge into no token",
         LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["q", "q"], )"),
         {"unknown"}},
        {"a merge of three", LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["a", "b", "c"], )"), {"two"}},
        {"dropout", LLM_EDIT("tokenizer.json", R"("dropout":null)", R"("dropout":0.1)"), {"dropout"}},
        {"a word's token",
         LLM_EDIT("tokenizer.json", R"("single_word":false)", R"("single_word":true)"),
         {"single_word"}},
        {"another model's tokenizer",
         [](Files& f) { f["tokenizer.json"] = read_file(tiny("gemma3-tiny/tokenizer.json")); },
         {"tokenizer_class", "GPT2Tokenizer"}},
    };
    check_refused_directories(tiny("gpt2-tiny"), cases);
}

TEST_CASE("damaged Gemma directories are refused") {
    const DirectoryCase cases[] = {
        {"an unknown layer", LLM_EDIT("config.json", "full_attention", "chunked_attention"), {"chunked_attention"}},
        {"a layer too many",
         LLM_EDIT("config.json", R"("layer_types": [)", R"("layer_types": ["full_attention",)"),
         {"layer_types"}},
        {"another RoPE", LLM_EDIT("config.json", R"("default")", R"("yarn")"), {"rope_type", "yarn"}},
        {"RoPE without a base", LLM_EDIT("config.json", "500000.0", "0"), {"rope"}},
        {"soft caps",
         LLM_EDIT("config.json", R"("final_logit_softcapping": null)", R"("final_logit_softcapping": -30)"),
         {"final_logit_softcapping"}},
        {"biases",
         LLM_EDIT("config.json", R"("attention_bias": false)", R"("attention_bias": true)"),
         {"attention_bias"}},
        {"both directions",
         LLM_EDIT("config.json", R"("use_bidirectional_attention": false)", R"("use_bidirectional_attention": true)"),
         {"use_bidirectional_attention"}},
        {"another activation", LLM_EDIT("config.json", "gelu_pytorch_tanh", "silu"), {"hidden_activation", "silu"}},
        {"odd heads", LLM_EDIT("config.json", R"("head_dim": 32)", R"("head_dim": 33)"), {"head_dim", "odd"}},
        {"large heads", LLM_EDIT("config.json", R"("head_dim": 32)", R"("head_dim": 4096)"), {"head_dim", "4096"}},
        {"other heads", LLM_EDIT("config.json", R"("head_dim": 32)", R"("head_dim": 16)"), {"q_proj.weight"}},
        {"K/V heads that do not divide",
         LLM_EDIT("config.json", R"("num_key_value_heads": 3)", R"("num_key_value_heads": 4)"),
         {"heads"}},
        {"no window", LLM_EDIT("config.json", R"("sliding_window": 8)", R"("sliding_window": 0)"), {"sliding_window"}},
        {"no scale",
         LLM_EDIT("config.json", R"("query_pre_attn_scalar": 24)", R"("query_pre_attn_scalar": 0)"),
         {"query_pre_attn_scalar"}},
        {"no layers",
         LLM_EDIT("config.json", R"("num_hidden_layers": 4)", R"("num_hidden_layers": 0)"),
         {"num_hidden_layers"}},
        {"more layers than listed",
         LLM_EDIT("config.json", R"("num_hidden_layers": 4)", R"("num_hidden_layers": 9)"),
         {"layer_types"}},
        {"no embedding", LLM_HEADER("model.embed_tokens.weight", "model.embed.weight"), {"embedding"}},
        {"a flat embedding", LLM_HEADER(R"("shape":[1024,96])", R"("shape":[98304])"), {"lm_head.weight", "[98304]"}},
        {"a missing norm",
         LLM_HEADER("layers.2.self_attn.q_norm", "layers.2.self_attn.r_norm"),
         {"model.layers.2.self_attn.q_norm.weight"}},
        {"no byte fallback",
         LLM_EDIT("tokenizer.json", R"("byte_fallback":true)", R"("byte_fallback":false)"),
         {"byte_fallback"}},
        {"a template with an end",
         LLM_EDIT("tokenizer.json", R"("single":[)", R"("single":[{"SpecialToken":{}},)"),
         {"unknown token"}},
        {"no such first token", LLM_EDIT("tokenizer.json", R"({"id":"<bos>")", R"({"id":"<boss>")"), {"<boss>"}},
        {"a token with another's id",
         LLM_EDIT("tokenizer.json", R"({"id":2,"content":"<bos>")", R"({"id":0,"content":"<bos>")"),
         {"with the id 0", "<bos>"}},
    };
    check_refused_directories(test_data() / "layouts/gemma3-v5", cases);
}

TEST_CASE("an index that leads astray is refused") {
    const fs::path whole = test_data() / "layouts/gemma3-mm";
    const std::string index = read_file(whole / "model.safetensors.index.json");
    const std::string shard = "model-00001-of-00002.safetensors";
    const struct {
        std::string index;
        std::vector<std::string> message;
    } cases[] = {
        {"", {"index.json"}},
        {"{}", {"weight_map"}},
        {R"({"weight_map": []})", {"index.json"}},
        {R"({"weight_map": {}})", {"embedding"}},
        {R"({"weight_map": {"a": 5}})", {"index.json"}},
        {replaced(index, shard, "../" + shard), {"../" + shard}},
        {replaced(index, shard, "/etc/passwd"), {"/etc/passwd"}},
        {replaced(index, shard, ".."), {".."}},
        {replaced(index, shard, "a\\\\b"), {"not a file of the model's directory"}},
        {replaced(index, shard, ""), {"not a file of the model's directory"}},
        {replaced(index, shard, "model-00003-of-00002.safetensors"), {"model-00003-of-00002.safetensors", "missing"}},
        {replaced(index, shard, "model-00002-of-00002.safetensors"), {"is not in its shard"}},
        {replaced(index, "language_model.model.norm.weight", "language_model.model.norms.weight"), {"norms.weight"}},
        {replaced(index, shard, "config.json"), {"config.json", "no safetensors"}},
    };
    for (const auto& one : cases) {
        const TemporaryDirectory directory;
        for (const auto& entry : fs::directory_iterator(whole))
            fs::create_symlink(entry.path(), directory.path / entry.path().filename());
        fs::remove(directory.path / "model.safetensors.index.json");
        write_file(directory.path / "model.safetensors.index.json", one.index);
        check_refused(directory.path, one.message);
    }
}

// ---- GGUF

struct GgufCase {
    const char* what;
    void (*change)(Gguf&);
    std::vector<std::string> message;
};

template <std::size_t N> void check_refused_ggufs(const Gguf& whole, const GgufCase (&cases)[N]) {
    const TemporaryDirectory directory;
    for (const GgufCase& one : cases) {
        CAPTURE(std::string(one.what));
        Gguf file = whole;
        one.change(file);
        write_file(directory.path / "model.gguf", file.bytes());
        check_refused(directory.path / "model.gguf", one.message);
    }
}

std::string raw_strings(std::uint32_t type, std::initializer_list<std::string> items) {
    return Gguf::raw_array(type, std::vector<std::string>(items));
}

TEST_CASE("damaged GGUF files are refused") {
    using G = Gguf;
    static const std::string two = raw_strings(G::string, {"a", "b"});
    const GgufCase cases[] = {
        {"version 1", [](G& g) { g.version = 1; }, {"version 1"}},
        {"version 4", [](G& g) { g.version = 4; }, {"version 4"}},
        {"big-endian", [](G& g) { g.version = 0x03000000; }, {"big-endian"}},
        {"a tensor too many", [](G& g) { g.extra_tensors = 1; }, {}},
        {"too many tensors", [](G& g) { g.extra_tensors = std::uint64_t{1} << 40; }, {"count"}},
        {"too many values", [](G& g) { g.extra_pairs = std::uint64_t{1} << 60; }, {"count"}},
        {"a value twice", [](G& g) { g.pairs.push_back(g.pairs[0]); }, {"general.architecture"}},
        {"a string of 4 exabytes", [](G& g) { g.set("x", G::string, G::raw(std::uint64_t{1} << 62)); }, {}},
        {"an array of 16 exabytes", [](G& g) { g.set("x", G::array, G::raw(5u) + G::raw(UINT64_MAX)); }, {"count"}},
        {"an array of arrays", [](G& g) { g.set("x", G::array, G::raw(9u) + G::raw(std::uint64_t{1})); }, {"type"}},
        {"a value of unknown type", [](G& g) { g.set("x", 13, "abcd"); }, {"type"}},
        {"one part of several", [](G& g) { g.set("split.count", 2); }, {"part"}},
        {"no alignment", [](G& g) { g.set("general.alignment", 0); }, {"alignment"}},
        {"alignment of 24", [](G& g) { g.set("general.alignment", 24); }, {"alignment"}},
        {"alignment of 1 MB", [](G& g) { g.set("general.alignment", 1 << 20); }, {"alignment"}},

        {"another architecture", [](G& g) { g.set("general.architecture", std::string("llama")); }, {"llama"}},
        {"no architecture", [](G& g) { g.remove("general.architecture"); }, {"general.architecture"}},
        {"architecture as a number", [](G& g) { g.set("general.architecture", 2); }, {"general.architecture"}},
        {"no context", [](G& g) { g.remove("gpt2.context_length"); }, {"gpt2.context_length", "missing"}},
        {"context as text", [](G& g) { g.set("gpt2.context_length", std::string("64")); }, {"gpt2.context_length"}},
        {"no heads", [](G& g) { g.set("gpt2.attention.head_count", 0); }, {"gpt2.attention.head_count", "0"}},
        {"heads that do not divide", [](G& g) { g.set("gpt2.attention.head_count", 3); }, {"gpt2.embedding_length"}},
        {"another width", [](G& g) { g.set("gpt2.embedding_length", 128); }, {"token_embd.weight", "[768, 64]"}},
        {"another depth", [](G& g) { g.set("gpt2.block_count", 2); }, {"blk.1."}},
        {"a million layers", [](G& g) { g.set("gpt2.block_count", 1000000); }, {"gpt2.block_count", "1e+06"}},
        {"infinite norms", [](G& g) { g.set("gpt2.attention.layer_norm_epsilon", INFINITY); }, {"layer_norm_epsilon"}},

        {"no dimensions", [](G& g) { g.tensors[3].shape.clear(); }, {"output_norm.weight", "dimensions"}},
        {"five dimensions", [](G& g) { g.tensors[3].shape.assign(5, 1); }, {"output_norm.weight", "dimensions"}},
        {"a dimension of 0", [](G& g) { g.tensors[3].shape = {0}; }, {"output_norm.weight", "shape"}},
        {"shape of two to the 80", [](G& g) { g.tensors[3].shape.assign(2, std::uint64_t{1} << 40); }, {"shape"}},
        {"size of two to the 64", [](G& g) { g.tensors[3].shape = {std::uint64_t{1} << 62}; }, {"output_norm.weight"}},
        {"integers", [](G& g) { g.tensors[3].type = 26; }, {"output_norm.weight", "type"}},
        {"a type that is none", [](G& g) { g.tensors[0].type = 0xFFFFFFFF; }, {"token_embd.weight", "type"}},
        {"half a block", [](G& g) { g.tensors[0].type = 12; }, {"token_embd.weight", "blocks"}},
        {"an offset out of line", [](G& g) { g.tensors[3].shift = 4; }, {"output_norm.weight", "outside"}},
        {"an offset beyond the end", [](G& g) { g.tensors[3].shift = std::uint64_t{1} << 40; }, {"output_norm.weight"}},
        {"an offset near 2^64", [](G& g) { g.tensors[3].shift = 0 - std::uint64_t{1 << 20}; }, {"output_norm.weight"}},
        {"overlapping tensors", [](G& g) { g.tensors[3].shift = 0 - std::uint64_t{256}; }, {"output", "overlaps"}},
        {"a tensor named like a command", [](G& g) { g.tensors[3].name = "a\x1b[2J.weight"; }, {"a?[2J", "name"}},
        {"a key like a command", [](G& g) { g.set("gpt2.\x1b[2J", 1); }, {"gpt2.?[2J", "key"}},
        {"a key without end", [](G& g) { g.set("gpt2." + std::string(5000, 'x'), 1); }, {"xxx...", "key"}},
        {"a tensor twice", [](G& g) { g.tensors.push_back(g.tensors[3]); }, {"output_norm.weight"}},

        {"no tokenizer", [](G& g) { g.remove("tokenizer.ggml.model"); }, {"tokenizer.ggml.model"}},
        {"another tokenizer", [](G& g) { g.set("tokenizer.ggml.model", std::string("bert")); }, {"bert"}},
        {"another pre-tokenizer", [](G& g) { g.set("tokenizer.ggml.pre", std::string("qwen2")); }, {"qwen2"}},
        {"no tokens", [](G& g) { g.remove("tokenizer.ggml.tokens"); }, {"tokenizer.ggml.tokens"}},
        {"tokens as text", [](G& g) { g.set("tokenizer.ggml.tokens", std::string("a")); }, {"tokenizer.ggml.tokens"}},
        {"two tokens", [](G& g) { g.set("tokenizer.ggml.tokens", G::array, two); }, {}},
        {"no merges", [](G& g) { g.remove("tokenizer.ggml.merges"); }, {"tokenizer.ggml.merges"}},
        {"a merge of one",
         [](G& g) { g.set("tokenizer.ggml.merges", G::array, raw_strings(G::string, {"ab"})); },
         {R"("ab")"}},
        {"an unknown merge",
         [](G& g) { g.set("tokenizer.ggml.merges", G::array, raw_strings(G::string, {"q zzz"})); },
         {"zzz"}},
        {"a first token that is no number", [](G& g) { g.set("tokenizer.ggml.bos_token_id", 0.5f); }, {"bos_token_id"}},
        {"a last token that is no number", [](G& g) { g.set("tokenizer.ggml.eos_token_id", 0.5f); }, {"eos_token_id"}},
        {"types of other tokens",
         [](G& g) { g.set("tokenizer.ggml.token_type", G::array, G::raw_array(G::i32, std::vector<int>(700, 1))); },
         {"type"}},
    };
    check_refused_ggufs(scripted({}), cases);
}

TEST_CASE("damaged GGUF files of Gemma are refused") {
    using G = Gguf;
    const GgufCase cases[] = {
        {"no number as window", [](G& g) { g.set("gemma3.attention.sliding_window", NAN); }, {"sliding_window"}},
        {"odd heads", [](G& g) { g.set("gemma3.attention.key_length", 63); }, {"head_dim", "odd"}},
        {"values of another width", [](G& g) { g.set("gemma3.attention.value_length", 32); }, {"value_length"}},
        {"K/V heads that do not divide", [](G& g) { g.set("gemma3.attention.head_count_kv", 3); }, {"heads"}},
        {"another RoPE", [](G& g) { g.set("gemma3.rope.scaling.type", std::string("yarn")); }, {"yarn"}},
        {"RoPE scaled by less than 0",
         [](G& g) {
             g.set("gemma3.rope.scaling.type", std::string("linear"));
             g.set("gemma3.rope.scaling.factor", -2.0f);
         },
         {"rope"}},
        {"RoPE that is no number", [](G& g) { g.set("gemma3.rope.freq_base", NAN); }, {"gemma3.rope.freq_base"}},
        {"no scores", [](G& g) { g.remove("tokenizer.ggml.scores"); }, {"tokenizer.ggml.scores"}},
        {"few scores",
         [](G& g) { g.set("tokenizer.ggml.scores", G::array, G::raw_array(G::f32, std::vector<float>(9))); },
         {"score"}},
        {"scores that are no numbers",
         [](G& g) { g.set("tokenizer.ggml.scores", G::array, G::raw_array(G::f32, std::vector<float>(1024, NAN))); },
         {"score"}},
        {"no first token", [](G& g) { g.remove("tokenizer.ggml.bos_token_id"); }, {"bos_token_id"}},
        {"a token that makes merging slow",
         [](G& g) {
             std::string& tokens = g.pair("tokenizer.ggml.tokens").bytes;
             const std::string last = raw(std::uint64_t{300}) + std::string(300, 'a');
             std::size_t at = 12;
             for (int i = 0; i < 1023; ++i) at += 8 + usize(detail::load_as<std::uint64_t>(&tokens[at]));
             tokens.replace(at, tokens.size() - at, last);
         },
         {"too long a token", "aaa"}},
        {"GPT-2's tokenizer",
         [](G& g) { add_tokenizer(g, SmallTokenizer(false), false); },
         {"does not fit", "768", "1024"}},
    };
    check_refused_ggufs(as_gguf(tiny("gemma3-tiny"), TensorType::bf16), cases);
}

TEST_CASE("a missing or misshapen tensor is named, whichever it is") {
    const TemporaryDirectory directory;
    for (const Gguf& whole : {scripted({}), as_gguf(tiny("gemma3-tiny"), TensorType::bf16)}) {
        std::set<std::string> kinds;
        for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
            const std::string name = whole.tensors[i].name;
            if (!kinds.insert(name.substr(name.find('.', 4) + 1)).second) continue;  // a layer like another
            CAPTURE(name);
            Gguf less = whole, twisted = whole;
            less.tensors.erase(less.tensors.begin() + static_cast<std::ptrdiff_t>(i));
            twisted.tensors[i].shape.push_back(1);
            write_file(directory.path / "model.gguf", twisted.bytes());
            check_refused(directory.path / "model.gguf", {name == "token_embd.weight" ? "embedding" : name});
            if (name == "output.weight") continue;  // without it the head is the embedding
            write_file(directory.path / "model.gguf", less.bytes());
            check_refused(directory.path / "model.gguf", {name == "token_embd.weight" ? "embedding" : name});
        }
    }
}

TEST_CASE("files cut off anywhere, and files with any byte changed, are refused or loaded") {
    const TemporaryDirectory directory;
    const auto try_to_load = [&](const fs::path& path) {
        const std::string message = error_of([&] {
            Session session(load(path), 8);
            session.forward(std::vector<int>{1, 2, 3}.data(), 3);
        });
        if (!message.empty() && message.find(path.filename().string()) == std::string::npos &&
            message.find(path.parent_path().string()) == std::string::npos)
            FAIL_CHECK("names no file: " << message);
        return message;
    };
    fs::copy(tiny("gpt2-tiny"), directory.path / "hf");
    const std::pair<fs::path, std::string> wholes[] = {
        {directory.path / "model.gguf", scripted({1, 2, 3}).bytes()},
        {directory.path / "hf/tokenizer.json", read_file(tiny("gpt2-tiny/tokenizer.json"))},
        {directory.path / "hf/config.json", read_file(tiny("gpt2-tiny/config.json"))},
        {directory.path / "hf/model.safetensors", read_file(tiny("gpt2-tiny/model.safetensors"))},
    };
    Random random{9};
    for (const auto& [path, whole] : wholes) {
        const fs::path model = path.extension() == ".gguf" ? path : path.parent_path();
        const int header = static_cast<int>(std::min<std::size_t>(whole.size(), 20000));
        for (int i = 0; i < 150 / kThinned; ++i) {
            std::string damaged = whole;
            if (i % 3 == 0) damaged.resize(usize(random.below(header)));
            else damaged[usize(random.below(header))] = static_cast<char>(random.below(256));
            write_file(path, damaged);
            const std::string message = try_to_load(model);
            if (i % 3 == 0) CHECK(message != "");
        }
        write_file(path, whole);
        CHECK(try_to_load(model) == "");
    }
}

// A directory of the small GPT-2 or Gemma in which `from` becomes `to` in one file.
struct ChangedFile {
    TemporaryDirectory directory;
    ChangedFile(bool gemma, const std::string& file, const std::string& from, const std::string& to,
                bool shards = false) {
        Files files = directory_of(gemma, shards);
        std::string& bytes = files.at(file);
        const std::size_t at = bytes.find(from);
        REQUIRE_MESSAGE(at != bytes.npos, from);
        bytes.replace(at, from.size(), to);
        if (file == "model.safetensors") {  // the header's length
            const std::uint64_t length = detail::load_as<std::uint64_t>(bytes.data()) + to.size() - from.size();
            std::memcpy(bytes.data(), &length, sizeof length);
        }
        write_files(directory.path, files);
    }
    Model load() const { return tests::load(directory.path); }
};

TEST_CASE("a configuration that cannot be is refused by name") {
    const auto config = [](bool gemma, const char* from, const char* to) {
        return ChangedFile(gemma, "config.json", from, to);
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
    CHECK_ERROR(config(true, "\"factor\":8.0", "\"factor\":1e-30").load(), "rope", "too small");
    CHECK_ERROR(config(true, "\"rms_norm_eps\":", "\"rms_norm_eps\":-").load(), "norm_eps is negative");
    CHECK_ERROR(config(false, "\"layer_norm_epsilon\":", "\"layer_norm_epsilon\":-").load(), "norm_eps is negative");
    CHECK_ERROR(config(true, "\"factor\":8.0", "\"factor\":1e300").load(), "rope_parameters", "factor", "out of range");
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
        return ChangedFile(false, "model.safetensors", from, to);
    };
    const std::string ln_f = "\"transformer.ln_f.weight\":{\"dtype\":\"F16\",\"shape\":[8]";
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"F16\",\"shape\":[9]").load(), "ln_f.weight",
                "shape");
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"F16\",\"shape\":[4294967296,4294967296]").load(),
                "ln_f.weight", "impossible shape");
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"Q4_0\",\"shape\":[]").load(), "ln_f.weight",
                "no whole number of blocks");
    CHECK_ERROR(header(ln_f, "\"transformer.ln_f.weight\":{\"dtype\":\"I64\",\"shape\":[8]").load(), "ln_f.weight",
                "type");
    CHECK_ERROR(header("\"transformer.ln_f.weight\"", "\"transformer.ln_f.bias\"").load(), "two tensors are named",
                "ln_f.bias");
    CHECK_ERROR(header("\"data_offsets\":[0,", "\"data_offsets\":[0,99999999,").load(), "data_offsets");
    CHECK_ERROR(header("\"data_offsets\":[0,", "\"data_offsets\":[1000000000000,").load(), "lies outside of the file");
    CHECK_ERROR(header("{", std::string(1000000, '{')).load(), "header", "a key is missing");
    // Blocks are a GGUF's: here a matrix may be transposed, which would cut them.
    Files packed = directory_of(false);
    std::string& all = packed.at("model.safetensors");
    const std::size_t type = all.find("F16", all.find("h.0.mlp.c_fc.weight")), begin = all.find("[", type + 15) + 1,
                      end_of = all.find(']', begin);
    const int first = std::stoi(all.substr(begin));
    REQUIRE(all.substr(type + 4, 16) == ",\"shape\":[8,16],");
    const std::string row =
        "Q4_0\",\"shape\":[8,32],\"data_offsets\":[" + std::to_string(first) + "," + std::to_string(first + 8 * 18);
    const std::uint64_t length = detail::load_as<std::uint64_t>(all.data()) + row.size() - (end_of - type);
    all.replace(type, end_of - type, row);
    std::memcpy(all.data(), &length, sizeof length);
    std::string& config = packed.at("config.json");
    config.replace(config.find("\"n_inner\":16"), 12, "\"n_inner\":32");
    const TemporaryDirectory blocks;
    write_files(blocks.path, packed);
    CHECK_ERROR(load(blocks.path), "a type that cannot be read", "Q4_0", "c_fc");

    // Two tensors on the same bytes.
    Files files = directory_of(false);
    std::string& bytes = files.at("model.safetensors");
    const std::size_t a = bytes.find("data_offsets", bytes.find("ln_f.weight")),
                      b = bytes.find("data_offsets", bytes.find("ln_f.bias"));
    const std::size_t end = bytes.find(']', a);
    REQUIRE(bytes.find(']', b) - b == end - a);
    bytes.replace(b, end - a, bytes.substr(a, end - a));
    const TemporaryDirectory directory;
    write_files(directory.path, files);
    CHECK_ERROR(load(directory.path), "overlaps", "ln_f");
}

TEST_CASE("an index may name files of its directory only") {
    const auto index = [](const std::string& name) {
        return ChangedFile(true, "model.safetensors.index.json", "part-1.safetensors", name, true);
    };
    for (const char* name :
         {"../part-1.safetensors", "/etc/passwd", "..", "", "a/b", "a\\\\b", "c:x", "\\u0000", "\\u001b"})
        CHECK_ERROR(index(name).load(), "not a file of the model's directory");
    CHECK_ERROR(index("part-2.safetensors").load(), "a part of the model is missing", "part-2.safetensors");
    CHECK_ERROR(index("part-0.safetensors").load(), "not in its shard");
    CHECK_ERROR(index("model.safetensors.index.json").load(), "no safetensors header");
}

}  // namespace
}  // namespace tests
