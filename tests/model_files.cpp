// MODEL FILES: safetensors and GGUF, in all layouts that models come in.

#include "small_models.h"
#include "support.h"

namespace tests {
namespace {

// Every model of a directory with a golden.json: its tokens, and its logits in F32, in Q8_0 and as the file has them. Those that are in tests/data/
// as well are left out elsewhere.
int check_layouts(const fs::path& directory) {
    const JsonDocument golden = read_json(directory / "golden.json");
    const fs::path ours = test_data() / "layouts";
    int models = 0;
    for (const auto& [key, cases] : golden.root().members()) {
        const std::string name(key);
        if (directory != ours && fs::exists(ours / name)) continue;
        CAPTURE(name);
        const std::string path = (directory / name).string();
        const Model exact = load(path, DType::f32), quantized = load(path, DType::q8_0), small = load(path);
        Session session(exact), rounded(quantized), native(small);
        CHECK(small.info().weight_bytes <= quantized.info().weight_bytes);
        for (const Json& one : cases.array()) {
            const std::vector<int> ids = ints(*one.find("ids"));
            CHECK(exact.tokenizer().encode(text(one, "prompt")) == ids);
            session.rewind(0);
            rounded.rewind(0);
            native.rewind(0);
            const std::vector<float> expected = floats(*one.find("logits"));
            CHECK(distance(last_logits(session, ids), expected) < 2.4e-5f);
            CHECK(distance(last_logits(rounded, ids), expected) < 0.4f);
            CHECK(distance(last_logits(native, ids), expected) < 0.2f);
        }
        ++models;
    }
    return models;
}

TEST_CASE("layouts of model files give the reference's logits") { CHECK(check_layouts(test_data() / "layouts") == 7); }

// LLM_FIXTURES may name a directory of more model files with a golden.json like tests/data/layouts/golden.json.
const std::string more_layouts = environment("LLM_FIXTURES");
TEST_CASE("more layouts of model files give the reference's logits" * doctest::skip(more_layouts.empty())) {
    CHECK(check_layouts(more_layouts) > 0);
}

TEST_CASE("GGUF of F32, F16 and BF16, version 2 and 3, is the same model as the directory it was made from") {
    const TemporaryDirectory directory;
    const std::string path = (directory.path / "model.gguf").string();
    struct {
        std::string name;
        TensorType type;
        std::uint32_t version;
    } const cases[] = {
        {"gpt2-tiny", TensorType::f16, 3},
        {"gpt2-tiny", TensorType::f32, 2},
        {"gemma3-tiny", TensorType::bf16, 2},
        {"gemma3-tiny", TensorType::f32, 3},
    };
    for (const auto& one : cases) {
        const std::string original = tiny(one.name);
        CAPTURE(original);
        Gguf file = as_gguf(original, one.type);
        file.version = one.version;
        write_file(path, file.bytes());
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            const Model expected = load(original, dtype), got = load(path, dtype);
            const std::vector<int> ids = expected.tokenizer().encode("Shall I compare thee to a summer's day?");
            CHECK(got.tokenizer().encode("Shall I compare thee to a summer's day?") == ids);
            Session a(expected), b(got);
            CHECK(distance(logits_of(a, ids), logits_of(b, ids)) < 1e-5f);
            CHECK(got.info().format == "GGUF v" + std::to_string(one.version));
            CHECK(got.info().tensors.count(detail::traits(one.type).name) == 1);
        }
    }
}

TEST_CASE("a model is found by its directory and by its .safetensors file") {
    const std::vector<int> ids = {5, 6, 7};
    Session a(load(tiny("gpt2-tiny"))), b(load(tiny("gpt2-tiny/model.safetensors")));
    CHECK(last_logits(a, ids) == last_logits(b, ids));
}

}  // namespace
}  // namespace tests
