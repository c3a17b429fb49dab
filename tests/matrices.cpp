// MATRICES: y = W x against plain loops, for rows and columns that fill no group, block or span.

#include "support.h"

namespace tests {
namespace {

using detail::kBlock, detail::kTile, detail::Matrix;

const TensorType kFormats[] = {TensorType::f32,  TensorType::q8_0, TensorType::q4_0,
                               TensorType::q4_1, TensorType::q5_0, TensorType::q5_1,
                               TensorType::q6_k, TensorType::q2_k, TensorType::iq4_nl};
struct Range {  // of a format's integers, and what they stand for
    int count, offset, parts;
    bool has_minimum;
};
Range range_of(TensorType type) {
    switch (type) {
        case TensorType::q8_0: return {256, 128, 1, false};
        case TensorType::q4_0: return {16, 8, 1, false};
        case TensorType::q4_1: return {16, 0, 1, true};
        case TensorType::q5_0: return {32, 16, 1, false};
        case TensorType::q5_1: return {32, 0, 1, true};
        case TensorType::q6_k: return {64, 32, 2, false};
        case TensorType::q2_k: return {16, 0, 2, true};
        default: return {16, 128, 1, false};  // iq4_nl
    }
}

// A matrix, and the values [rows][cols] that it should have.
struct FilledMatrix {
    detail::Arena arena;
    Matrix m;
    std::vector<std::vector<float>> rows;

    // formats: of each group
    FilledMatrix(const std::vector<TensorType>& formats, int r, int cols, Random& random)
        : rows(usize(r), std::vector<float>(usize(cols))) {
        std::vector<const detail::WeightFormat*> of_groups;
        for (const TensorType type : formats) of_groups.push_back(&detail::format_of(type));
        m = Matrix(arena, r, cols, of_groups);
        for (int row = r; row-- > 0;)
            for (int c = (cols - 1) / kBlock * kBlock; c >= 0; c -= kBlock) {
                const TensorType type = formats[usize(row / detail::kGroup)];
                const int n = std::min(kBlock, cols - c);
                float* const values = rows[usize(row)].data() + c;
                if (type == TensorType::f32) {
                    for (int i = 0; i < n; ++i) values[i] = random.uniform(-1, 1);
                    CHECK(m.set(row, c, n, values, nullptr));
                } else {
                    CHECK(m.set(row, c, n, nullptr, &quants(type, n, values, random)));
                }
            }
    }
    FilledMatrix(TensorType type, int r, int cols, Random& random)
        : FilledMatrix(std::vector<TensorType>(usize((r - 1) / detail::kGroup + 1), type), r, cols, random) {}

    const detail::Quants& quants(TensorType type, int n, float* values, Random& random) {
        static const int codebook[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
        const Range range = range_of(type);
        for (int half = 0; half < 2; ++half) {
            last.scale[half] = detail::f32_to_f16(random.uniform(-2, 2) / static_cast<float>(range.count));
            last.minimum[half] = detail::f32_to_f16(random.uniform(-1, 1));
        }
        for (int i = 0; i < kBlock; ++i) {
            const int q = i < n ? random.below(range.count) : 0, part = i * range.parts / kBlock;
            last.q[i] = static_cast<std::uint8_t>(q);
            const float scale = detail::f16_to_f32(last.scale[part]),
                        minimum = range.has_minimum ? detail::f16_to_f32(last.minimum[part]) : 0;
            if (i < n)
                values[i] =
                    scale * static_cast<float>(type == TensorType::iq4_nl ? codebook[q] : q - range.offset) + minimum;
        }
        return last;
    }
    detail::Quants last{};
};

const std::pair<int, int> kSizes[] = {{1, 1},   {1, 31},  {15, 32},  {16, 33}, {17, 64}, {31, 65},
                                      {33, 95}, {64, 97}, {70, 200}, {129, 7}, {96, 384}};

TEST_CASE("a row of a matrix is what was put into it, in every format") {
    Random random{1};
    for (const auto& size : kSizes)
        for (const TensorType type : kFormats) {
            const int rows = size.first, cols = size.second;
            CAPTURE(rows);
            CAPTURE(std::string(detail::format_of(type).name));
            const FilledMatrix filled(type, rows, cols, random);
            CHECK(filled.m.bytes >= usize(rows * cols) / 2);
            for (int r = 0; r < rows; ++r) {
                std::vector<float> row(usize(cols + 1), 5);
                filled.m.row(r, row.data());
                CHECK(row.back() == 5);
                row.pop_back();
                if (row != filled.rows[usize(r)]) FAIL("row " << r);
            }
        }
}

TEST_CASE("values that come as floats are those of their rounded blocks") {
    Random random{2};
    for (const TensorType type : {TensorType::q8_0, TensorType::q4_0})
        for (const int cols : {1, 33, 96}) {
            const detail::WeightFormat& format = detail::format_of(type);
            detail::Arena arena, same;
            const Matrix m(arena, 20, cols, {&format, &format}), by_blocks(same, 20, cols, {&format, &format});
            for (int r = 0; r < 20; ++r) {
                const std::vector<float> x = random.values(cols);
                std::vector<float> a(usize(cols)), b(usize(cols));
                for (int c = 0; c < cols; c += kBlock) {
                    const int n = std::min(kBlock, cols - c);
                    detail::Quants quants;
                    format.quantize(x.data() + c, n, quants);
                    CHECK(m.set(r, c, n, x.data() + c, nullptr));
                    CHECK(by_blocks.set(r, c, n, nullptr, &quants));
                }
                m.row(r, a.data());
                by_blocks.row(r, b.data());
                CHECK((a == b));
                for (std::size_t i = 0; i < a.size(); ++i)
                    CHECK(std::fabs(a[i] - x[i]) < (type == TensorType::q8_0 ? 0.005 : 0.13));
            }
            const float bad[] = {INFINITY};
            CHECK(!m.set(0, 0, 1, bad, nullptr));
        }
}

// What activations hold of a token: itself in F32, integers times a scale for each block in Q8_0.
std::vector<double> as_activations(const std::vector<float>& x, DType dtype) {
    std::vector<double> out(x.begin(), x.end());
    if (dtype == DType::f32) return out;
    std::vector<detail::ActivationBlock> blocks(x.size() / kBlock + 1);
    detail::scalar::quantize(x.data(), static_cast<int>(x.size()), blocks.data(), 1);
    for (std::size_t i = 0; i < x.size(); ++i)
        out[i] = double{blocks[i / kBlock].scale} * blocks[i / kBlock].q[i % kBlock];
    return out;
}

TEST_CASE("activations keep every column of every token, in whatever pieces they come") {
    const detail::Kernels& k = detail::scalar::kernels;
    Random random{3};
    for (const int tokens : {1, 2, 11, 12, 13, 25})
        for (const int cols : {1, 32, 33, 64, 65, 200})
            for (const DType dtype : {DType::f32, DType::q8_0}) {
                CAPTURE(tokens);
                CAPTURE(cols);
                CAPTURE(name_of(dtype));
                detail::Activations x;
                detail::Arena arena;
                const TensorType type = dtype == DType::f32 ? TensorType::f32 : TensorType::q8_0;
                x.resize(Matrix(arena, 1, cols, {&detail::format_of(type)}), tokens);
                CHECK(x.tokens() == tokens);
                std::vector<std::vector<float>> values;
                for (int t = 0; t < tokens; ++t) values.push_back(random.values(cols + kBlock));
                for (int t = tokens; t-- > 0;)
                    for (int begin = (cols - 1) / 64 * 64, n = 64; begin >= 0;
                         begin -= 64)  // the last piece is cut off
                        x.set(k, t, begin, values[usize(t)].data() + begin, std::min(n, cols - begin + kBlock));
                for (int t = 0; t < tokens; ++t) {
                    const int first = t / kTile * kTile, m = x.tile_size(first);
                    const std::vector<float> one(values[usize(t)].begin(), values[usize(t)].begin() + cols);
                    const std::vector<double> expected = as_activations(one, dtype);
                    for (int c = 0; c < cols; ++c) {
                        double got = 0;
                        if (dtype == DType::f32) {
                            got = x.tile<float>(first)[(c / 64 * m + t - first) * 64 + c % 64];
                        } else {
                            const auto& block = x.tile<detail::ActivationBlock>(first)[c / kBlock * m + t - first];
                            got = double{block.scale} * block.q[c % kBlock];
                        }
                        if (got != expected[usize(c)]) FAIL("token " << t << ", column " << c);
                    }
                }
            }
}

TEST_CASE("a product is the plain sum, each value handed out once") {
    Random random{4};
    for (const int threads : {1, 2, 3}) {
        detail::ThreadPool pool(threads);
        for (const detail::Kernels* kernels : detail::available_kernels())
            for (const auto& size : kSizes)
                for (const TensorType type : thinned(std::vector<TensorType>(std::begin(kFormats), std::end(kFormats))))
                    for (const int tokens : thinned<int>({1, 2, 5, 12, 13, 100})) {
                        const int rows = size.first, cols = size.second;
                        CAPTURE(std::string(kernels->name));
                        CAPTURE(threads);
                        CAPTURE(rows);
                        CAPTURE(cols);
                        CAPTURE(tokens);
                        CAPTURE(std::string(detail::format_of(type).name));
                        const DType dtype = type == TensorType::f32 ? DType::f32 : DType::q8_0;
                        // Some have several formats, by groups.
                        std::vector<TensorType> formats(usize((rows - 1) / detail::kGroup + 1), type);
                        for (std::size_t g = 0; g < formats.size() && type != TensorType::f32; g += 3)
                            formats[g] = TensorType::q6_k;
                        const FilledMatrix filled(formats, rows, cols, random);
                        const Matrix& m = filled.m;
                        detail::Activations x;
                        x.resize(m, tokens);
                        std::vector<std::vector<double>> inputs;
                        for (int t = 0; t < tokens; ++t) {
                            const std::vector<float> one = random.values(cols);
                            x.set(*kernels, t, 0, one.data(), cols);
                            inputs.push_back(as_activations(one, dtype));
                        }
                        std::vector<float> y(usize(tokens * rows), NAN);
                        std::atomic<int> twice{0};
                        detail::multiply(pool, *kernels, m, x, 1 << random.below(3),
                                         [&](int t, int row, float* v, int n) {
                                             for (int i = 0; i < n; ++i) {
                                                 float& out = y[usize(t * rows + row + i)];
                                                 twice += !std::isnan(out);
                                                 out = v[i];
                                             }
                                         });
                        CHECK(twice == 0);
                        double worst = 0;
                        for (int r = 0; r < rows; ++r) {
                            const std::vector<float>& row = filled.rows[usize(r)];
                            for (int t = 0; t < tokens; ++t) {
                                const double exact =
                                    std::inner_product(row.begin(), row.end(), inputs[usize(t)].begin(), 0.0);
                                const double off = std::fabs(y[usize(t * rows + r)] - exact);
                                worst = std::max(worst, std::isnan(off) ? INFINITY : off);
                            }
                        }
                        CHECK(worst < 3e-6 * (2 + std::sqrt(cols)));
                    }
    }
}

TEST_CASE("many tokens are divided among the threads, and each value is handed out once") {
    Random random{6};
    const detail::Kernels& kernels = *detail::available_kernels().back();
    for (const TensorType type : {TensorType::f32, TensorType::q8_0, TensorType::q4_0})
        for (const int tokens : {191, 192, 200, 400})
            for (const int threads : {2, 3}) {
                CAPTURE(tokens);
                CAPTURE(threads);
                const FilledMatrix filled(type, 40, 64, random);
                detail::ThreadPool pool(threads);
                detail::Activations x;
                x.resize(filled.m, tokens);
                for (int t = 0; t < tokens; ++t) x.set(kernels, t, 0, random.values(64).data(), 64);
                std::vector<std::atomic<int>> times(usize(tokens * 40));
                detail::multiply(pool, kernels, filled.m, x, 1, [&](int t, int row, const float*, int n) {
                    for (int i = 0; i < n; ++i) ++times[usize(t * 40 + row + i)];
                });
                CHECK(std::all_of(times.begin(), times.end(), [](const auto& n) { return n == 1; }));
            }
}

TEST_CASE("rows that fill up the last group change nothing, and a matrix beyond the address space is no memory") {
    Random random{5};
    FilledMatrix filled(TensorType::f32, 17, 40, random);
    const Matrix& m = filled.m;
    CHECK(m.groups() == 2);
    for (int r = 17; r < 32; ++r) {
        std::vector<float> row(40, 9);
        m.row(r, row.data());
        CHECK(row == std::vector<float>(40));
    }
    for (const int rows : {1, 16, 17, 32, 33}) {
        const std::vector groups(usize(rows + 15) / 16, &detail::format_of(TensorType::q8_0));
        const Matrix one(filled.arena, rows, 40, groups);
        REQUIRE(one.sections.size() == 1);
        CHECK(one.sections[0].end == (rows + 15) / 16);
    }
    if (sizeof(void*) == 4)
        CHECK_THROWS_AS(
            Matrix(filled.arena, 1 << 24, 1 << 18, std::vector(1 << 20, &detail::format_of(TensorType::f32))),
            std::bad_alloc);
}

TEST_CASE("the kernels are the best of this machine, or those that LLM_SIMD names") {
    const auto sets = detail::available_kernels();
    CHECK(std::string(sets.front()->name) == "scalar");
    for (const detail::Kernels* set : sets) {
        const Environment forced("LLM_SIMD", set->name);
        CHECK(&detail::choose_kernels() == set);
    }
    const Environment none("LLM_SIMD", "quantum");
    CHECK_ERROR(detail::choose_kernels(), "LLM_SIMD", "quantum", "choose one of scalar");
}

}  // namespace
}  // namespace tests
