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
        const TensorType type = detail::find_type(name);
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
    CHECK(types == 12);
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

// A block of Q8_0 as it stands in a file.
struct Q8Block {
    std::uint8_t bytes[34];
    explicit Q8Block(const std::vector<float>& x) {
        detail::quantize_q8_0(x.data(), static_cast<int>(x.size()), bytes);
    }
    std::uint16_t scale() const { return detail::load_as<std::uint16_t>(bytes); }
    int operator[](std::size_t i) const { return static_cast<std::int8_t>(bytes[2 + i]); }
};

TEST_CASE("values are rounded to the nearest integer by the scale that is stored") {
    Random random{1};
    for (int round = 0; round < 3000; ++round) {
        const float size = std::exp2(random.uniform(-12, 12));
        const int n = round % 3 ? 32 : 1 + random.below(32);
        const std::vector<float> x = random.values(n, -size, size);
        const Q8Block block(x);
        const double d = detail::f16_to_f32(block.scale());
        for (std::size_t i = 0; i < 32; ++i) {
            CAPTURE(i);
            if (i >= x.size()) {
                CHECK(block[i] == 0);
                continue;
            }
            // Half a step and a crumb of the division. The largest ones stop at 127 where the scale was rounded down.
            const double nearest = std::min(std::max(x[i] / d, -127.0), 127.0);
            if (d == 0 ? block[i] != 0 : std::fabs(nearest - block[i]) > 0.50001)
                FAIL(x[i] << " became " << block[i] << " times " << d);
        }
    }
}

TEST_CASE("halves are rounded away from zero, and nothing below a half") {
    const float below = std::nextafter(0.5f, 0.0f), big = 100.5f;
    const Q8Block block({127, 0.5f, -0.5f, below, -below, 1.5f, 2.5f, -2.5f, big, std::nextafter(big, 0.0f), 126.5f});
    CHECK(block.scale() == detail::f32_to_f16(1.0f));
    const int expected[] = {127, 1, -1, 0, 0, 2, 3, -3, 101, 100, 127};
    for (std::size_t i = 0; i < std::size(expected); ++i) {
        CAPTURE(i);
        CHECK(block[i] == expected[i]);
    }
}

TEST_CASE("blocks of zeros, of tiny and of huge values, and of what is no number") {
    CHECK(Q8Block({0, 0, -0.0f}).scale() == 0);
    CHECK(Q8Block({1e-9f, -1e-9f})[0] == 0);  // the scale is 0 in F16
    CHECK(Q8Block({8e6f, -8e6f, 4e6f})[1] == -127);
    for (const float bad : {INFINITY, -INFINITY, NAN, 3e38f}) {  // the last has a scale beyond F16
        const Q8Block block({1, bad, 2});
        CHECK(!std::isfinite(detail::f16_to_f32(block.scale())));
        for (std::size_t i = 0; i < 32; ++i) CHECK(block[i] == 0);
    }
}

}  // namespace
}  // namespace tests
