// MODEL: from a checkpoint to a configuration and weights.

#include "small_models.h"
#include "support.h"

namespace tests {
namespace {

TEST_CASE("info says what was in the file and what it became") {
    struct {
        std::string path;
        DType dtype;
        const char* format;
        int quantized, exact, fused, ignored;
        const char* formats;
    } const cases[] = {
        {tiny("gpt2-tiny"), DType::native, "safetensors", 1 + 4 * 4, 0, 0, 0, "17 q8_0"},
        {tiny("gpt2-tiny"), DType::f32, "safetensors", 0, 1 + 4 * 4, 0, 0, "17 f32"},
        {tiny("gemma3-tiny"), DType::q4_0, "safetensors", 1 + 6 * 4, 0, 6 * 5, 0, "42 q4_0, 1 q8_0"},
        {test_data() / "layouts/gemma3-mm", DType::q8_0, "safetensors, 2 shards", 1 + 7 * 4, 0, 7 * 5, 2, "50 q8_0"},
        {test_data() / "layouts/gpt2-odd", DType::q4_0, "safetensors", 2 + 3 * 4, 0, 0, 3, "12 q4_0, 2 q8_0"},
        {test_data() / "layouts/gemma3-q8_0.gguf", DType::native, "GGUF v3", 0, 1 + 3 * 4, 3 * 5, 0, "22 q8_0"},
        {test_data() / "layouts/gemma3-q2_k.gguf", DType::q8_0, "GGUF v3", 1 + 3 * 4, 0, 3 * 5, 0, "22 q8_0"},
        {test_data() / "layouts/gemma3-q2_k.gguf", DType::native, "GGUF v3", 0, 1 + 3 * 4, 3 * 5, 0,
         "18 q2_k, 3 q4_1, 1 q6_k"},
    };
    for (const auto& one : cases) {
        CAPTURE(one.path);
        const Model model = load(one.path, one.dtype);
        const llm::ModelInfo& info = model.info();
        CHECK(info.format == one.format);
        CHECK(info.quantized == one.quantized);
        CHECK(info.exact == one.exact);
        CHECK(info.fused == one.fused);
        CHECK(info.ignored == one.ignored);
        CHECK(model.dtype() == one.dtype);
        std::string formats;
        std::size_t bytes = 0;
        for (const auto& [name, held] : info.formats) {
            formats += (formats.empty() ? "" : ", ") + std::to_string(held.matrices) + " " + name;
            bytes += held.bytes;
        }
        CHECK(formats == one.formats);
        CHECK(bytes <= info.weight_bytes);
        CHECK(info.weight_bytes >= info.parameters * (one.dtype == DType::f32 ? 4u : 1u) / 2);
    }
    CHECK(load(tiny("gpt2-tiny")).info().parameters == 924416);
}

TEST_CASE("loading reports its progress from 0 to 1") {
    std::vector<float> steps;
    llm::LoadOptions options;
    options.progress = [&](float done, const char* what) {
        CHECK(std::string(what) != "");
        steps.push_back(done);
    };
    Model::load(tiny("gpt2-tiny"), options);
    CHECK(steps.size() > 10);
    CHECK(steps.front() == 0);
    CHECK(steps.back() == 1);
    CHECK(std::is_sorted(steps.begin(), steps.end()));
}

// ---- config.json

using Edits = std::vector<std::pair<std::string, std::string>>;  // from, to

// The small GPT-2 or Gemma as a directory whose config.json is edited.
struct Edited {
    TemporaryDirectory directory;
    Edited(bool gemma, const Edits& edits) : Edited(directory_of(gemma), edits) {}
    Edited(Files files, const Edits& edits) {
        for (const auto& [from, to] : edits) files["config.json"] = replaced(files["config.json"], from, to);
        write_files(directory.path, files);
    }
    Model model() const { return load(directory.path, DType::f32, 1); }
    // Without the weights, which may not fit.
    llm::Config config() const { return detail::read_config(detail::open_checkpoint(directory.path.string())); }
};

const std::string kLayerTypes = R"("layer_types":["sliding_attention","full_attention"],)";

TEST_CASE("what config.json leaves out has the reference's default") {
    const llm::Config gpt2 = Edited({{"config.json", R"({"model_type": "gpt2"})"},
                                     {"model.safetensors", directory_of(false).at("model.safetensors")}},
                                    {})
                                 .config();
    CHECK(gpt2.context_length == 1024);
    CHECK(gpt2.hidden_size == 768);
    CHECK(gpt2.intermediate_size == 3072);
    CHECK(gpt2.num_layers == 12);
    CHECK(gpt2.num_heads == 12);
    CHECK(gpt2.num_kv_heads == 12);
    CHECK(gpt2.head_dim == 64);
    CHECK(gpt2.norm_eps == 1e-5f);
    CHECK(gpt2.attention_scale == 0.125f);
    CHECK(gpt2.tied_head);
    const llm::Config gemma = Edited({{"config.json", R"({"model_type": "gemma3_text"})"},
                                      {"model.safetensors", directory_of(true).at("model.safetensors")}},
                                     {})
                                  .config();
    CHECK(gemma.context_length == 131072);
    CHECK(gemma.hidden_size == 2304);
    CHECK(gemma.intermediate_size == 9216);
    CHECK(gemma.num_layers == 26);
    CHECK(gemma.num_heads == 8);
    CHECK(gemma.num_kv_heads == 4);
    CHECK(gemma.head_dim == 256);
    CHECK(gemma.norm_eps == 1e-6f);
    CHECK(gemma.attention_scale == 0.0625f);
    CHECK(gemma.rope_theta == 1e6f);
    CHECK(gemma.rope_local_theta == 1e4f);
    CHECK(gemma.rope_scaling == 1);
    CHECK(gemma.sliding_window == 4096);
    CHECK(gemma.tied_head);
    for (int i = 0; i < 26; ++i) CHECK(gemma.is_local[usize(i)] == (i % 6 != 5));
}

TEST_CASE("config.json: the norm's epsilon, the attention's scale, the window and RoPE are read") {
    CHECK(Edited(false, {{"1e-05", "0.25"}}).config().norm_eps == 0.25f);
    CHECK(Edited(true, {{"1e-06", "0.25"}}).config().norm_eps == 0.25f);
    CHECK(Edited(true, {}).config().attention_scale == 0.5f);  // of 4
    CHECK(Edited(true, {{R"("query_pre_attn_scalar":4)", R"("query_pre_attn_scalar":16)"}}).config().attention_scale ==
          0.25f);
    CHECK(Edited(true, {{R"("sliding_window":6)", R"("sliding_window":3)"}}).config().sliding_window == 3);
    // transformers 5
    const std::string both = R"("rope_parameters":)", none = R"("rope_scaling":null,"x":)";
    const llm::Config five =
        Edited(true, {{R"("rope_type":"default","rope_theta":1e4)", R"("rope_theta":500)"}}).config();
    CHECK(five.rope_theta == 1e6f);
    CHECK(five.rope_local_theta == 500);
    CHECK(five.rope_scaling == 8);
    CHECK(Edited(true, {{both, R"("rope_scaling":{},)" + both}}).config().rope_scaling == 8);
    // transformers 4
    const llm::Config four =
        Edited(true, {{both, none}, {R"("rope_theta":1e6)", R"("rope_theta":2e5,"rope_local_base_freq":300)"}})
            .config();
    CHECK(four.rope_theta == 2e5f);
    CHECK(four.rope_local_theta == 300);
    CHECK(four.rope_scaling == 1);
    for (const char* type : {"type", "rope_type"}) {
        const std::string linear = std::string(R"("rope_scaling":{")") + type + R"(":"linear","factor":4},"x":)";
        CHECK(Edited(true, {{both, linear}}).config().rope_scaling == 4);
    }
}

TEST_CASE("config.json: which layers are local is listed, or follows a pattern") {
    const auto local = [](const std::string& instead) {
        return Edited(true, {{kLayerTypes, instead}}).config().is_local;
    };
    CHECK(local(kLayerTypes) == std::vector<bool>{true, false});
    CHECK(local(R"("layer_types":["full_attention","sliding_attention"],)") == std::vector<bool>{false, true});
    CHECK(local("") == std::vector<bool>{true, true});  // every sixth is not
    CHECK(local(R"("sliding_window_pattern":1,)") == std::vector<bool>{false, false});
    CHECK(local(R"("sliding_window_pattern":2,)") == std::vector<bool>{true, false});
    CHECK_ERROR(local(R"("_sliding_window_pattern":2,)"), "_sliding_window_pattern", "layer_types");
}

TEST_CASE(
    "a head in the file that differs from the embedding is the head, and there must be one where config.json says so") {
    for (const bool gemma : {false, true}) {
        CAPTURE(gemma);
        Files files = directory_of(gemma);
        Shape s{gemma};
        s.vocab = Edited(gemma, {}).config().vocab_size;
        const std::string tied = R"("tie_word_embeddings":true)", own = R"("tie_word_embeddings":false)",
                          same = R"("model_type")";
        const std::string one = gemma ? same : tied;  // which the small GPT-2 says
        const Model without = Edited(files, {{one, gemma ? tied + "," + same : tied}}).model();
        std::vector<Weight> weights = weights_of(s, false);
        weights.push_back({"lm_head.weight", {s.vocab, s.hidden}});
        files["model.safetensors"] = safetensors(weights, TensorType::f32);
        const Model with = Edited(files, {{one, gemma ? tied + "," + same : tied}}).model(),
                    apart = Edited(files, {{one, gemma ? own + "," + same : own}}).model();
        CHECK(without.config().tied_head);
        CHECK(!with.config().tied_head);
        CHECK(!apart.config().tied_head);
        CHECK(apart.info().parameters == without.info().parameters + usize(s.vocab * s.hidden));
        Session a(with, 0, 1), b(apart, 0, 1);
        CHECK(last_logits(a, {5, 6}) == last_logits(b, {5, 6}));
        Session c(without, 0, 1);
        CHECK(last_logits(a, {5, 6}) != last_logits(c, {5, 6}));
    }
    CHECK(load(tiny("gemma3-tiny")).config().tied_head);
    CHECK_FALSE(load(test_data() / "layouts/gpt2-odd").config().tied_head);
    CHECK_FALSE(load(test_data() / "layouts/gemma3-v5").config().tied_head);
    // A multimodal checkpoint says it outside of text_config; what is inside does not count, as in transformers.
    for (const bool outside : {true, false}) {
        Files files = directory_of(true);
        const std::string text = files["config.json"], own = R"("tie_word_embeddings":false,)";
        files["config.json"] = "{" + std::string(outside ? own : "") + R"("model_type":"gemma3","text_config":{)" +
                               std::string(outside ? "" : own) + text.substr(1) + "}";
        if (!outside) CHECK(Edited(files, {}).config().tied_head);
        else CHECK_ERROR(Edited(files, {}).config(), "lm_head.weight", "tie_word_embeddings is false");
    }
}

// A change of the configuration alone, which the file's weights fit as well, must reach the logits.
TEST_CASE("every number of the configuration makes a difference") {
    const auto logits = [](bool gemma, const Edits& edits) {
        Session session(Edited(gemma, edits).model(), 0, 1);
        return last_logits(session, {5, 6, 7, 8, 9, 10, 11, 12, 13, 14});
    };
    const std::vector<float> gpt2 = logits(false, {}), gemma = logits(true, {});
    CHECK(logits(false, {{"1e-05", "0.25"}}) != gpt2);
    CHECK(logits(false, {{R"("n_head":2)", R"("n_head":4)"}}) != gpt2);
    const Edits edits[] = {
        {{"1e-06", "0.25"}},
        {{R"("query_pre_attn_scalar":4)", R"("query_pre_attn_scalar":16)"}},
        {{R"("sliding_window":6)", R"("sliding_window":3)"}},
        {{R"("factor":8.0)", R"("factor":1)"}},
        {{R"("rope_type":"default","rope_theta":1e4)", R"("rope_theta":10)"}},
        {{R"("factor":8.0,"rope_theta":1e6)", R"("factor":8.0,"rope_theta":10)"}},
        {{R"(["sliding_attention","full_attention"])", R"(["full_attention","sliding_attention"])"}}};
    for (const Edits& one : edits) {
        CAPTURE(one[0].second);
        CHECK(logits(true, one) != gemma);
    }
}

// ---- a GGUF's metadata

llm::Config config_of(const Gguf& file) {
    const TemporaryDirectory directory;
    write_file(directory.path / "model.gguf", file.bytes());
    return detail::read_config(detail::open_checkpoint((directory.path / "model.gguf").string()));
}

TEST_CASE("GGUF: the norm's epsilon, the window and RoPE are read, or have llama.cpp's default") {
    Gguf gpt2 = small_gguf(false), gemma = small_gguf(true);
    CHECK(config_of(gpt2).norm_eps == 1e-5f);
    gpt2.set("gpt2.attention.layer_norm_epsilon", 0.25f);
    CHECK(config_of(gpt2).norm_eps == 0.25f);

    for (const char* key : {"gemma3.attention.sliding_window", "gemma3.rope.freq_base"}) gemma.remove(key);
    const llm::Config usual = config_of(gemma);
    CHECK(usual.norm_eps == 1e-6f);
    CHECK(usual.sliding_window == 0);
    CHECK(usual.rope_theta == 1e6f);
    CHECK(usual.rope_local_theta == 1e4f);
    CHECK(usual.rope_scaling == 1);
    CHECK(usual.is_local == std::vector<bool>{false, false});
    gemma.set("gemma3.attention.layer_norm_rms_epsilon", 0.25f);
    gemma.set("gemma3.attention.sliding_window", 7);
    gemma.set("gemma3.attention.sliding_window_pattern", 2);
    gemma.set("gemma3.rope.freq_base", 2e5f);
    gemma.set("gemma3.rope.freq_base_swa", 300.0f);
    gemma.set("gemma3.rope.scaling.type", std::string("linear"));
    gemma.set("gemma3.rope.scaling.factor", 8.0f);
    const llm::Config read = config_of(gemma);
    CHECK(read.norm_eps == 0.25f);
    CHECK(read.sliding_window == 7);
    CHECK(read.is_local == std::vector<bool>{true, false});
    CHECK(read.rope_theta == 2e5f);
    CHECK(read.rope_local_theta == 300);
    CHECK(read.rope_scaling == 8);
}

TEST_CASE("GGUF: Ollama's older converter leaves out that the models of text and pictures divide positions by 8") {
    Gguf file = small_gguf(true);
    for (const char* key : {"attention.layer_norm_rms_epsilon", "rope.scaling.type", "rope.scaling.factor"})
        file.remove("gemma3." + std::string(key));
    CHECK(config_of(file).rope_scaling == 1);
    file.set("gemma3.context_length", 131072);
    CHECK(config_of(file).rope_scaling == 8);
    CHECK(config_of(file).rope_local_scaling == 1);
    Gguf other = file;
    other.set("gemma3.rope.scaling.factor", 1.0f);
    CHECK(config_of(other).rope_scaling == 1);
    other = file;
    other.set("gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    CHECK(config_of(other).rope_scaling == 1);
    other.set("gemma3.rope.local.freq_base", 1e4f);  // only its converter calls it so
    CHECK(config_of(other).rope_scaling == 8);
    other.set("gemma3.context_length", 32768);
    CHECK(config_of(other).rope_scaling == 1);
    file.set("gemma3.context_length", 8192);
    CHECK(config_of(file).rope_scaling == 1);
    file.set("gemma3.vision.block_count", 27);
    CHECK(config_of(file).rope_scaling == 8);
}

TEST_CASE("GGUF: the softcapping that Ollama's converter wrote into models without one is not applied") {
    Gguf file = small_gguf(true);
    file.set("gemma3.final_logit_softcapping", 30.0f);
    CHECK(config_of(file).final_logit_softcapping == 30);
    file.set("gemma3.rope.global.freq_base", 1e6f);
    CHECK(config_of(file).final_logit_softcapping == 0);
    file.set("gemma3.final_logit_softcapping", 2.0f);
    CHECK(config_of(file).final_logit_softcapping == 2);
}

TEST_CASE("GGUF: a list with a value for each layer has the same for all, to the last bit") {
    Gguf file = small_gguf(true);
    file.set_list("gemma3.rope.freq_base", Gguf::f32, std::vector<float>{1e6f, 1e6f});
    CHECK(config_of(file).rope_theta == 1e6f);
    file.set_list("gemma3.rope.freq_base", Gguf::f32, std::vector<float>{1e6f, 1000001.0f});
    CHECK_ERROR(config_of(file), "rope.freq_base", "layer to layer");
}

TEST_CASE("sizes have limits, and each pair of a head one frequency") {
    llm::Config c = Edited(true, {}).config();
    const Model model = Model::random(c);
    CHECK(model.data().rope_global.size() == usize(c.head_dim / 2));
    CHECK(model.data().rope_local.size() == usize(c.head_dim / 2));
    const std::pair<int llm::Config::*, int> limits[] = {
        {&llm::Config::num_layers, 1000}, {&llm::Config::num_heads, 4096},      {&llm::Config::num_kv_heads, 4096},
        {&llm::Config::head_dim, 1024},   {&llm::Config::hidden_size, 1 << 18}, {&llm::Config::vocab_size, 1 << 24}};
    for (const auto& [member, most] : limits)
        for (const int size : {0, most + 1}) {
            llm::Config other = c;
            other.*member = size;
            CHECK_ERROR(Model::random(other), "is missing or too large");
        }
}

// The 27B model has 62 layers and heads of 128, but its scale is 1 / sqrt(5376 / 32).
TEST_CASE("GGUF: the attention's scale comes from the heads, or of the 27B model from the width") {
    Shape s = gguf_shape(true);
    s.head_dim = 64;
    CHECK(config_of(small_gguf(s)).attention_scale == 0.125f);  // 1 / sqrt(64)
    s.layers = 62;
    CHECK(config_of(small_gguf(s)).attention_scale == 0.25f);  // 1 / sqrt(32 / 2)
    CHECK(config_of(small_gguf(false)).attention_scale == 0.25f);
}

TEST_CASE("a session's context is the model's own, but no more than 8192 unless it is asked for") {
    llm::Config c = shape("gpt2", 16, 1, 1, 16, 16);
    for (const int longest : {100, 8192, 8193, 10000}) {
        c.context_length = longest;
        const Model model = Model::random(c);
        CHECK(Session(model).context() == std::min(longest, 8192));
        CHECK(Session(model, longest).context() == longest);
        CHECK(Session(model, 77).context() == 77);
    }
}

}  // namespace
}  // namespace tests
