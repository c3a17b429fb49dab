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

TEST_CASE("a type that is not known is one that cannot be read") {
    CHECK(detail::find_type("F32") == TensorType::f32);
    CHECK(detail::find_type("IQ4_XS") == TensorType::iq4_xs);
    for (const char* name : {"I8", "", "f32", "other", "IQ4_XSS"}) CHECK(detail::find_type(name) == TensorType::other);
}

TEST_CASE("floats of any number are read, and nothing is written behind them") {
    Random random{9};
    for (const TensorType type : {TensorType::f32, TensorType::f16, TensorType::bf16})
        for (const int n : {0, 1, 15, 16, 17, 32, 35}) {
            CAPTURE(n);
            std::vector<float> values(usize(n));
            for (float& v : values) v = static_cast<float>(random.below(256)) / 64;  // few bits: exact in all three
            std::string bytes;
            for (const float v : values) {
                const std::uint32_t bits = detail::f32_to_bits(v);
                if (type == TensorType::f32) bytes += raw(bits);
                else
                    bytes +=
                        raw(type == TensorType::f16 ? detail::f32_to_f16(v) : static_cast<std::uint16_t>(bits >> 16));
            }
            std::vector<float> got(values.size() + 1, 123.0f);
            detail::traits(type).to_f32(reinterpret_cast<const std::uint8_t*>(bytes.data()), got.data(), n);
            CHECK(got.back() == 123.0f);
            got.pop_back();
            CHECK(got == values);
        }
}

TEST_CASE("a value that is too large is found wherever it stands") {
    for (int n = 0; n < 50; ++n) {
        std::vector<float> values(usize(n), 1.5f);
        CHECK(detail::all_below(values.data(), values.size(), 2));
        for (int i = 0; i < n; ++i)
            for (const float bad : {2.0f, -3.0f, INFINITY, -INFINITY, NAN}) {
                values[usize(i)] = bad;
                if (detail::all_below(values.data(), values.size(), 2)) FAIL(bad << " at " << i << " of " << n);
                values[usize(i)] = -1.9f;
            }
    }
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

// The same integers and scales on their way into a matrix: exactly the file's, or with a scale of a part of a block, and a
// minimum, rounded to F16.
TEST_CASE("a block's integers, scales and minimums are its values") {
    int types = 0;
    for (const auto& entry : fs::directory_iterator(test_data() / "blocks")) {
        const std::string name = entry.path().stem().string(), bytes = read_file(entry.path());
        CAPTURE(name);
        const TensorType type = detail::find_type(name);
        const detail::TypeTraits& traits = detail::traits(type);
        if (!traits.quants) continue;
        ++types;
        const auto* const blocks = reinterpret_cast<const std::uint8_t*>(bytes.data());
        std::vector<float> expected(usize(5 * traits.block)), got(expected.size());
        traits.to_f32(blocks, expected.data(), 5);
        const detail::WeightFormat& format = detail::format_of(traits.kept_as);
        const bool is_exact = traits.block == 32;
        for (int b = 0, i = 0; b < 5; ++b)
            for (int v = 0; v < traits.block; v += 32, i += 32) {
                detail::Quants quants;
                traits.quants(blocks + b * traits.bytes, v, quants);
                std::vector<std::uint8_t> group(format.bytes);
                if (!format.pack(group.data(), nullptr, 5, quants)) {  // one of the blocks' scales is too large for F16
                    std::copy_n(expected.data() + i, 32, got.data() + i);
                    CHECK(!is_exact);
                    continue;
                }
                format.unpack(group.data(), nullptr, 5, 32, got.data() + i);
            }
        double worst = 0;  // of what a scale or a minimum may be off, in units of the largest value of each 32
        for (std::size_t i = 0; i < got.size(); i += 32) {
            double top = 1e-3, off = 0;
            for (std::size_t k = i; k < i + 32; ++k) {
                top = std::max(top, std::fabs(double{expected[k]}));
                off = std::max(off, std::fabs(double{got[k]} - double{expected[k]}));
            }
            worst = std::max(worst, off / top);
        }
        if (is_exact) CHECK((got == expected));
        else CHECK(worst < 0.02);  // random blocks have minimums far larger than what is left of them
    }
    CHECK(types == 12);
}

TEST_CASE("4 bits are as near to the values as the best scale makes them") {
    Random random{9};
    for (int round = 0; round < 500; ++round) {
        const int n = round % 4 ? 32 : 1 + random.below(32);
        const std::vector<float> x = random.values(n, -1, 1);
        detail::Quants quants;
        detail::quantize_q4_0(x.data(), n, quants);
        const auto error = [&](double scale, const auto& q) {
            double sum = 0;
            for (int i = 0; i < n; ++i) sum += std::pow(x[usize(i)] - scale * (q(i) - 8), 2);
            return sum;
        };
        const double got = error(detail::f16_to_f32(quants.scale[0]), [&](int i) { return int{quants.q[i]}; });
        double largest = 0;
        for (const float v : x)
            if (std::fabs(v) > std::fabs(largest)) largest = v;
        const double plain = error(
            largest / -8, [&](int i) { return std::min(15, static_cast<int>(x[usize(i)] * -8 / largest + 8.5)); });
        if (got > plain * 1.001 + 1e-6) FAIL(got << " instead of " << plain);
    }
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
        detail::Quants quants;
        const float x[] = {1, bad, 2};
        detail::quantize_q4_0(x, 3, quants);
        CHECK(!std::isfinite(detail::f16_to_f32(quants.scale[0])));
    }
    for (const float tiny : {0.0f, 1e-40f, 1e-9f}) {
        detail::Quants quants;
        detail::quantize_q4_0(&tiny, 1, quants);
        CHECK(detail::f16_to_f32(quants.scale[0]) == doctest::Approx(0));
    }
}

// The integers of Q8_0, as they are in a file.
struct Q8Block {
    detail::Quants quants;
    explicit Q8Block(const std::vector<float>& x) {
        detail::quantize_q8_0(x.data(), static_cast<int>(x.size()), quants);
    }
    std::uint16_t scale() const { return quants.scale[0]; }
    int operator[](std::size_t i) const { return quants.q[i] - 128; }
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
