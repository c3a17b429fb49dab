// MATRICES: y = W x against plain loops, for rows and columns that fill no group, block or span.

#include "support.h"

namespace tests {
namespace {

using detail::kBlock, detail::kTile, detail::Matrix;

// A matrix of these values [rows, cols], which the Arena holds.
Matrix matrix_of(detail::Arena& arena, DType dtype, int rows, int cols, const std::vector<float>& values) {
    Matrix m(arena, detail::format_of(dtype), rows, cols);
    m.pack(0, rows, 0, cols, values.data(), nullptr);
    return m;
}

// What a Q8_0 matrix holds of a row's values: those that their blocks read as.
std::vector<float> as_q8_0(const float* row, int cols) {
    std::vector<float> out;
    for (int begin = 0; begin < cols; begin += kBlock) {
        std::uint8_t block[34];
        float values[kBlock];
        const int n = std::min(kBlock, cols - begin);
        detail::quantize_q8_0(row + begin, n, block);
        detail::q8_0_to_f32(block, values, 1);
        out.insert(out.end(), values, values + n);
    }
    return out;
}

std::vector<float> row_of(const std::vector<float>& values, int row, int cols, DType dtype) {
    const float* begin = values.data() + row * cols;
    return dtype == DType::f32 ? std::vector<float>(begin, begin + cols) : as_q8_0(begin, cols);
}

const std::pair<int, int> kSizes[] = {{1, 1},   {1, 31},  {15, 32},  {16, 33}, {17, 64}, {31, 65},
                                      {33, 95}, {64, 97}, {70, 200}, {129, 7}, {96, 384}};

TEST_CASE("a row of a matrix is what was put into it") {
    Random random{1};
    for (const auto& size : kSizes)
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            const int rows = size.first, cols = size.second;
            CAPTURE(rows);
            CAPTURE(name_of(dtype));
            detail::Arena arena;
            const std::vector<float> values = random.values(rows * cols, -3, 3);
            const Matrix m = matrix_of(arena, dtype, rows, cols, values);
            CHECK(m.bytes() >= usize(rows * cols) * (dtype == DType::f32 ? 4 : 1));
            for (int r = 0; r < rows; ++r) {
                std::vector<float> row(usize(cols + 1), 5);
                m.row(r, row.data());
                CHECK(row.back() == 5);
                row.pop_back();
                if (row != row_of(values, r, cols, dtype)) FAIL("row " << r);
            }
        }
}

TEST_CASE("blocks of a Q8_0 file become rows as they are, in any order of rows and columns") {
    Random random{2};
    const int rows = 37, cols = 96;
    detail::Arena arena;
    const Matrix m(arena, detail::format_of(DType::q8_0), rows, cols);
    std::vector<std::vector<float>> expected(usize(rows), std::vector<float>(usize(cols)));
    for (const auto& [first, count] : {std::pair{30, 7}, std::pair{0, 13}, std::pair{13, 17}})
        for (const int col : {32, 64, 0}) {
            std::string raw;
            for (int r = 0; r < count; ++r) {
                std::uint8_t block[34];
                const std::vector<float> x = random.values(kBlock);
                detail::quantize_q8_0(x.data(), kBlock, block);
                detail::q8_0_to_f32(block, expected[usize(first + r)].data() + col, 1);
                raw.append(reinterpret_cast<const char*>(block), sizeof block);
            }
            m.pack(first, count, col, kBlock, nullptr, reinterpret_cast<const std::uint8_t*>(raw.data()));
        }
    for (int r = 0; r < rows; ++r) {
        std::vector<float> row(usize(cols));
        m.row(r, row.data());
        if (row != expected[usize(r)]) FAIL("row " << r);
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
                Matrix w;  // its format and columns are all that counts
                w.format = &detail::format_of(dtype), w.cols = cols;
                x.resize(w, tokens);
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
                for (const DType dtype : {DType::f32, DType::q8_0})
                    for (const int tokens : thinned<int>({1, 2, 5, 12, 13, 100})) {
                        const int rows = size.first, cols = size.second;
                        CAPTURE(std::string(kernels->name));
                        CAPTURE(threads);
                        CAPTURE(rows);
                        CAPTURE(cols);
                        CAPTURE(tokens);
                        CAPTURE(name_of(dtype));
                        detail::Arena arena;
                        const std::vector<float> w = random.values(rows * cols);
                        const Matrix m = matrix_of(arena, dtype, rows, cols, w);
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
                            const std::vector<float> row = row_of(w, r, cols, dtype);
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

TEST_CASE("rows that fill up the last group change nothing, and a matrix beyond the address space is no memory") {
    detail::Arena arena;
    const Matrix m = matrix_of(arena, DType::f32, 17, 40, std::vector<float>(17 * 40, 1));
    CHECK(m.groups() == 2);
    for (int r = 17; r < 32; ++r) {
        std::vector<float> row(40, 9);
        m.row(r, row.data());
        CHECK(row == std::vector<float>(40));
    }
    if (sizeof(void*) == 4)
        CHECK_THROWS_AS(Matrix(arena, detail::format_of(DType::f32), 1 << 24, 1 << 18), std::bad_alloc);
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
