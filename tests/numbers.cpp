// NUMBERS: how weights are written down.

#include "support.h"

namespace tests {
namespace {

// tests/data/blocks/TYPE.bin: 5 blocks (of random bytes, of zeros, of ones; large, small and negative scales), and then
// the F32 values that the Python package gguf reads from them.
TEST_CASE("dequantization gives the reference's values, bit for bit") {
    int types = 0;
    for (const auto& entry : fs::directory_iterator(test_data() / "blocks")) {
        const std::string name = entry.path().stem().string(), bytes = read_file(entry.path());
        CAPTURE(name);
        const TensorType type = detail::find_type([&](const detail::TypeTraits& t) { return name == t.name; });
        REQUIRE(type != TensorType::other);
        const detail::TypeTraits& traits = detail::traits(type);
        const int n = 5;
        REQUIRE(bytes.size() == usize(n) * (usize(traits.bytes) + usize(traits.block) * sizeof(float)));
        std::vector<float> expected(usize(n * traits.block)), got(expected.size() + 1, 123.0f);
        std::memcpy(expected.data(), bytes.data() + n * traits.bytes, expected.size() * sizeof(float));
        traits.to_f32(reinterpret_cast<const std::uint8_t*>(bytes.data()), got.data(), n);
        CHECK(got.back() == 123.0f);
        got.pop_back();
        CHECK(got == expected);
        ++types;
    }
    CHECK(types == 10);
}

TEST_CASE("F16 and BF16 to F32 and back") {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        const float value = detail::f16_to_f32(half);
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                                 : exponent == 0 ? std::ldexp(fraction, -24)
                                                 : std::ldexp(1024 + fraction, exponent - 25);
        const bool good = std::isnan(magnitude)
                              ? std::isnan(value) && std::isnan(detail::f16_to_f32(detail::f32_to_f16(value)))
                              : value == std::copysign(static_cast<float>(magnitude), half & 0x8000 ? -1.0f : 1.0f) &&
                                    detail::f32_to_f16(value) == half;
        if (!good) FAIL("F16 " << bits);
    }
    // Between neighbours the nearer one, of equally near ones the even one; beyond the largest, infinity.
    for (std::uint16_t half = 0; half < 0x7BFF; ++half) {
        const float low = detail::f16_to_f32(half), high = detail::f16_to_f32(static_cast<std::uint16_t>(half + 1));
        const float middle = (low + high) / 2;
        const bool good = detail::f32_to_f16(middle) == (half & 1 ? half + 1 : half) &&
                          detail::f32_to_f16(std::nextafter(middle, low)) == half &&
                          detail::f32_to_f16(std::nextafter(middle, high)) == half + 1;
        if (!good) FAIL("F16 beyond " << half);
    }
    CHECK(detail::f32_to_f16(65519.996f) == 0x7BFF);
    CHECK(detail::f32_to_f16(65520.0f) == 0x7C00);
    CHECK(detail::f32_to_f16(-1e30f) == 0xFC00);
    CHECK(detail::bf16_to_f32(0x3FC0) == 1.5f);
    CHECK(detail::bf16_to_f32(0xFF80) == -INFINITY);
}

}  // namespace
}  // namespace tests
