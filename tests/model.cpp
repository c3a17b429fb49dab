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
    } const cases[] = {
        {tiny("gpt2-tiny"), DType::q8_0, "safetensors", 1 + 4 * 4, 0, 0, 0},
        {tiny("gpt2-tiny"), DType::f32, "safetensors", 0, 1 + 4 * 4, 0, 0},
        {tiny("gemma3-tiny"), DType::q8_0, "safetensors", 1 + 6 * 4, 0, 6 * 5, 0},
        {test_data() / "layouts/gemma3-mm", DType::q8_0, "safetensors, 2 shards", 1 + 7 * 4, 0, 7 * 5, 2},
        {test_data() / "layouts/gpt2-odd", DType::q8_0, "safetensors", 2 + 3 * 4, 0, 0, 3},
        {test_data() / "layouts/gemma3-q8_0.gguf", DType::q8_0, "GGUF v3", 0, 1 + 3 * 4, 3 * 5, 0},
        {test_data() / "layouts/gemma3-q2_k.gguf", DType::q8_0, "GGUF v3", 1 + 3 * 4, 0, 3 * 5, 0},
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
        CHECK(info.weight_bytes >= info.parameters * (one.dtype == DType::f32 ? 4 : 1));
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

TEST_CASE("the head is the model's own where its files say so") {
    CHECK(load(tiny("gemma3-tiny")).config().tied_head);
    CHECK_FALSE(load(test_data() / "layouts/gpt2-odd").config().tied_head);
    CHECK_FALSE(load(test_data() / "layouts/gemma3-v5").config().tied_head);
}

}  // namespace
}  // namespace tests
