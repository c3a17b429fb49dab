// build/bench: measures and plots. Without --report it is a small llama-bench: how fast a model reads a prompt (pp) and
// generates (tg), with that program's options, test names and field names, so that one script can read both. With
// --report it draws the status page: what this machine can do, what a model makes of it, and what is left.

#define LLM_IMPLEMENTATION
#include "llm.h"
#include "plot.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <variant>

namespace {

using Clock = std::chrono::steady_clock;
using llm::detail::seconds_since;
using llm::detail::usize;

// ---- The command line

constexpr const char* kUsage =
    "usage: bench [options]\n"
    "  -m PATH        model (models/gemma3-tiny; with --report the shapes below)\n"
    "  --shape NAME   a published model's exact shape with random weights instead: gpt2-124m, gpt2-medium,\n"
    "                 gpt2-large, gpt2-xl, gemma3-270m, gemma3-1b or gemma3-4b\n"
    "  -p N,...       prompt lengths, 0: no such test (512, at most the model's context)\n"
    "  -n N,...       tokens to generate, 0: no such test (128)\n"
    "  -d N,...       tokens there before: all tests are done at each depth (0)\n"
    "  -t N           threads, 0: one for each physical core (0)\n"
    "  -r N           repetitions of each test (5; with --report 3)\n"
    "  -o FORMAT      md, json or csv (md; with --report text for a terminal)\n"
    "  --dtype TYPE   q8_0 or f32 (q8_0)\n"
    "  --report       the status page: machine, prompts of -p tokens (1,128,512,2048), generation after each, where "
    "the\n"
    "                 time of a step goes, and what is left to gain; without -m and --shape for gpt2-124m, "
    "gemma3-270m\n"
    "                 and gemma3-1b, as far as memory allows\n"
    "  --png FILE     the report as a picture\n"
    "  --compare FILE the ratio to an earlier run's -o json, marked where it is beyond the spread of both\n"
    "  -q             no progress on the terminal\n";

using Options = std::map<std::string, std::string>;

Options parse(const std::vector<std::string>& args) {
    Options o = {{"-m", ""},        {"-p", ""},   {"-n", "128"},       {"-d", "0"},       {"-t", "0"},
                 {"-r", ""},        {"-o", ""},   {"--dtype", "q8_0"}, {"--shape", ""},   {"--png", ""},
                 {"--compare", ""}, {"-q", "no"}, {"-h", "no"},        {"--report", "no"}};
    for (std::size_t i = 0; i < args.size(); ++i) {
        const auto option = o.find(args[i]);
        if (option == o.end()) throw llm::Error(args[i] + ": unknown option: try -h");
        const bool is_switch = args[i] == "-q" || args[i] == "-h" || args[i] == "--report";
        if (!is_switch && ++i == args.size()) throw llm::Error(option->first + ": its value is missing: try -h");
        option->second = is_switch ? "yes" : args[i];
    }
    const bool report = o["--report"] == "yes";
    if (o["-o"].empty()) o["-o"] = report ? "text" : "md";
    if (o["-o"] != "md" && o["-o"] != "json" && o["-o"] != "csv" && !(report && o["-o"] == "text"))
        throw llm::Error("-o: " + o["-o"] + ": try -h");
    if (o["--dtype"] != "q8_0" && o["--dtype"] != "f32") throw llm::Error("--dtype: " + o["--dtype"] + ": try -h");
    if (!o["-m"].empty() && !o["--shape"].empty()) throw llm::Error("--shape: a model is named as well: choose one");
    if (!o["--png"].empty() && !report) throw llm::Error("--png: draws a report: add --report");
    if (o["-r"].empty()) o["-r"] = report ? "3" : "5";
    return o;
}

std::vector<int> numbers(const Options& o, const std::string& option, int lowest) {
    std::istringstream in(o.at(option));
    std::vector<int> values;
    char comma = ',';
    for (int value = 0; comma == ',' && in >> std::noskipws >> value && value >= lowest && value <= 1 << 28;) {
        values.push_back(value);
        if (!(in >> comma)) return values;
    }
    throw llm::Error(option + ": '" + o.at(option) + "' is not a list of whole numbers from " + std::to_string(lowest));
}

template <class... Values> std::string format(const char* pattern, Values... values) {
    std::string text(usize(std::snprintf(nullptr, 0, pattern, values...)), '\0');
    std::snprintf(text.data(), text.size() + 1, pattern, values...);
    return text;
}

// What goes on, on a terminal; nothing where there is none.
class Progress {
  public:
    explicit Progress(const Options& o) : shown_(o.at("-q") == "no" && isatty(STDERR_FILENO)) {}
    ~Progress() { (*this)(""); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    void operator()(const std::string& what) const {
        if (shown_) std::cerr << "\r\033[K" << what << std::flush;
    }
  private:
    bool shown_;
};

// ---- Models

struct Shape {
    const char* name;
    int vocab, context, hidden, intermediate, layers, heads, kv_heads, head_dim, window;  // window 0: GPT-2
    float rope_scaling;
};

constexpr Shape kShapes[] = {
    {"gpt2-124m", 50257, 1024, 768, 3072, 12, 12, 12, 64, 0, 1},
    {"gpt2-medium", 50257, 1024, 1024, 4096, 24, 16, 16, 64, 0, 1},
    {"gpt2-large", 50257, 1024, 1280, 5120, 36, 20, 20, 64, 0, 1},
    {"gpt2-xl", 50257, 1024, 1600, 6400, 48, 25, 25, 64, 0, 1},
    {"gemma3-270m", 262144, 32768, 640, 2048, 18, 4, 1, 256, 512, 1},
    {"gemma3-1b", 262144, 32768, 1152, 6912, 26, 4, 1, 256, 512, 1},
    {"gemma3-4b", 262208, 131072, 2560, 10240, 34, 8, 4, 256, 1024, 8},
};

llm::Config config_of(const Shape& s) {
    llm::Config c;
    const bool gpt2 = s.window == 0;
    c.architecture = gpt2 ? "gpt2" : "gemma3";
    c.vocab_size = s.vocab;
    c.context_length = s.context;
    c.hidden_size = s.hidden;
    c.intermediate_size = s.intermediate;
    c.num_layers = s.layers;
    c.num_heads = s.heads;
    c.num_kv_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.norm_eps = gpt2 ? 1e-5f : 1e-6f;
    c.attention_scale = 1 / std::sqrt(float(s.head_dim));
    c.rope_theta = gpt2 ? 0.0f : 1e6f;
    c.rope_local_theta = gpt2 ? 0.0f : 1e4f;
    c.rope_scaling = s.rope_scaling;
    c.sliding_window = s.window;
    for (int i = 0; i < s.layers; ++i) c.is_local.push_back(!gpt2 && i % 6 != 5);
    return c;
}

double weight_bytes(const Shape& s, bool q8) {
    const double attention = double(s.hidden) * s.head_dim * (2 * s.heads + 2 * s.kv_heads);
    const double ffn = double(s.hidden) * s.intermediate * (s.window ? 3 : 2);
    return (s.layers * (attention + ffn) + double(s.vocab) * s.hidden) * (q8 ? 34.0 / 32 : 4);
}

// Memory that can be had without swapping; infinite where the system does not say.
double available_memory() {
    double bytes = INFINITY;
    std::ifstream meminfo("/proc/meminfo"), group("/sys/fs/cgroup/memory.max"), used("/sys/fs/cgroup/memory.current");
    for (std::string name, rest; meminfo >> name; std::getline(meminfo, rest))
        if (double kb; name == "MemAvailable:" && meminfo >> kb) bytes = kb * 1024;
    if (double most, now; group >> most && used >> now) bytes = std::min(bytes, most - now);
    return bytes;
}

const Shape& find_shape(const std::string& name, bool q8) {
    std::string names;
    for (const Shape& s : kShapes) {
        names += std::string(names.empty() ? "" : ", ") + s.name;
        if (s.name != name) continue;
        if (weight_bytes(s, q8) * 1.1 > available_memory())
            throw llm::Error(format("--shape: %s needs %.1f GB of memory, %.1f GB are available: choose a smaller one",
                                    s.name, weight_bytes(s, q8) / 1e9, available_memory() / 1e9));
        return s;
    }
    throw llm::Error("--shape: '" + name + "' is none of " + names);
}

llm::LoadOptions load_options(const Options& o) {
    llm::LoadOptions load;
    load.dtype = o.at("--dtype") == "f32" ? llm::DType::f32 : llm::DType::q8_0;
    load.threads = numbers(o, "-t", 0)[0];
    return load;
}

// A shape's name makes a random model, anything else is a path.
llm::Model make_model(const std::string& name, bool is_shape, const llm::LoadOptions& load) {
    if (!is_shape) return llm::Model::load(name, load);
    return llm::Model::random(config_of(find_shape(name, load.dtype == llm::DType::q8_0)), load);
}

bool is_gpt2(const llm::Model& m) { return m.config().architecture == "gpt2"; }

std::string type_of(const llm::Model& m) {
    return (is_gpt2(m) ? "gpt2 " : "gemma3 ") + std::to_string((m.info().parameters + 500000) / 1000000) + "M " +
           (m.dtype() == llm::DType::f32 ? "f32" : "q8_0");
}

std::vector<int> random_tokens(const llm::Model& model, int count) {
    std::vector<int> tokens;
    std::minstd_rand random(1);
    while (int(tokens.size()) < count) tokens.push_back(int(random() % unsigned(model.config().vocab_size)));
    return tokens;
}

// ---- Statistics

using Samples = std::vector<double>;

double sum(const Samples& x) { return std::accumulate(x.begin(), x.end(), 0.0); }
double mean(const Samples& x) { return sum(x) / double(x.size()); }

double deviation(const Samples& x) {
    double squares = 0;
    for (const double v : x) squares += (v - mean(x)) * (v - mean(x));
    return x.size() > 1 ? std::sqrt(squares / double(x.size() - 1)) : 0;
}

double quantile(Samples x, double q) {
    const auto at = x.begin() + std::min(std::ptrdiff_t(q * double(x.size())), std::ptrdiff_t(x.size()) - 1);
    std::nth_element(x.begin(), at, x.end());
    return *at;
}
double median(const Samples& x) { return quantile(x, 0.5); }

// How far runs lie apart, relative to their mean; not known from a single one.
double spread(const Samples& x) { return x.size() > 1 ? deviation(x) / mean(x) : NAN; }

// ---- Tables: made once, printed for a terminal, as Markdown, JSON or CSV, and compared with those of earlier runs

using Cell = std::variant<std::string, double>;  // NaN: does not apply

struct Column {
    const char *key, *heading;  // in JSON and CSV; for people
    int decimals = 0;
};

struct Row {
    std::vector<Cell> cells;
    double spread = NAN;        // of the measured column, between this run's repetitions
    double bar = 0, solid = 1;  // on a terminal: a bar's length in 0 .. 1, and how much of that is solid
};

struct Table {
    std::string model, name, title;
    int measure;  // the column to compare; 0: none
    bool less_is_better;
    std::vector<Column> columns;  // the first names the row
    std::vector<Row> rows{};

    std::string text(const Row& row, std::size_t column) const {
        const Cell& cell = row.cells[column];
        if (std::holds_alternative<std::string>(cell)) return std::get<std::string>(cell);
        const double value = std::get<double>(cell);
        return std::isnan(value) ? "" : format("%.*f", columns[column].decimals, value);
    }
};

std::string bar(const Row& row) {
    constexpr double kWidth = 28;
    const int length = row.bar > 0 ? std::max(1, int(std::lround(row.bar * kWidth))) : 0;
    std::string text;
    for (int i = 0; i < length; ++i) text += i < std::lround(row.bar * row.solid * kWidth) ? "\u2588" : "\u2591";
    return text;
}

// Lines of at most 96 characters.
std::string wrapped(const std::string& text) {
    std::string out;
    std::size_t length = 0;
    std::istringstream words(text);
    for (std::string word; words >> word; length += word.size() + 1) {
        if (length + word.size() > 96 && word[0] != '%') out += '\n', length = 0;
        out += (length ? " " : "") + word;
    }
    return out;
}

// Objects of a JSON array, lines of CSV with a head where the fields change, or tables.
class Output {
  public:
    explicit Output(std::string form) : format_(std::move(form)) {}
    bool json() const { return format_ == "json"; }
    bool prose() const { return format_ == "text" || format_ == "md"; }

    class Fields {
      public:
        explicit Fields(bool json) : json_(json) { values_ << std::fixed; }
        template <class Value> void add(const std::string& name, const Value& value) {
            names_ += (names_.empty() ? "" : ",") + name;
            values_ << (comma_ ? "," : "") << (json_ ? "\n    \"" + name + "\": " : "") << value;
            comma_ = true;
        }
        void add_text(const std::string& name, const std::string& text) {
            std::string clean;
            for (const char c : text) clean += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
            std::ostringstream quoted;
            quoted << std::quoted(clean, '"', json_ ? '\\' : '"');
            add(name, quoted.str());
        }
        void add_number(const std::string& name, double value) {
            add(name, std::isfinite(value) ? format("%.10g", value) : json_ ? "null" : "");
        }
      private:
        friend Output;
        bool json_, comma_ = false;
        std::string names_;
        std::ostringstream values_;
    };

    void object(const Fields& f) {
        if (json()) std::cout << (first_ ? "[" : ",") << "\n  {" << f.values_.str() << "\n  }" << std::flush;
        else std::cout << (f.names_ != names_ ? f.names_ + "\n" : "") << f.values_.str() << std::endl;
        first_ = false;
        names_ = f.names_;
    }
    void table(const Table& t) {
        if (prose()) return print(t);
        for (const Row& row : t.rows) {
            Fields f(json());
            f.add_text("model_filename", t.model);
            f.add_text("table", t.name);
            for (std::size_t c = 0; c < t.columns.size(); ++c) {
                const Cell& cell = row.cells[c];
                const std::string key = c ? t.columns[c].key : "row";
                if (std::holds_alternative<double>(cell)) f.add_number(key, std::get<double>(cell));
                else f.add_text(key, std::get<std::string>(cell));
            }
            if (t.measure) f.add_number("spread", row.spread);
            object(f);
        }
    }
    void line(const std::string& text) {
        if (prose()) std::cout << text << std::endl;
    }
    void end() {
        if (json()) std::cout << (first_ ? "[" : "") << "\n]" << std::endl;
        if (!std::cout) throw llm::Error("cannot write to standard output");
    }
  private:
    void print(const Table& t) const {
        const bool md = format_ == "md";
        if (!t.title.empty()) std::cout << "\n" << wrapped(t.title) << "\n" << (md ? "\n" : "");
        std::vector<std::size_t> widths;
        for (std::size_t c = 0; c < t.columns.size(); ++c) {
            widths.push_back(std::string(t.columns[c].heading).size());
            for (const Row& row : t.rows) widths[c] = std::max(widths[c], t.text(row, c).size());
        }
        const auto line = [&](const auto& cell_of, const std::string& end) {
            std::string out;
            for (std::size_t c = 0; c < t.columns.size(); ++c) {
                const std::string cell = cell_of(c);
                const std::string fill = std::string(widths[c] - std::min(widths[c], cell.size()), ' ');
                const bool left = c == 0 || std::holds_alternative<std::string>(t.rows[0].cells[c]);
                out += (md ? "| " : c ? "  " : "") + (left ? cell + fill : fill + cell) + (md ? " " : "");
            }
            out += md ? "|" : "  " + end;
            std::cout << out.substr(0, out.find_last_not_of(' ') + 1) << "\n";
        };
        if (t.rows.empty()) return;
        if (md || *t.columns.back().heading) line([&](std::size_t c) { return t.columns[c].heading; }, "");
        if (md) {
            for (std::size_t c = 0; c < t.columns.size(); ++c)
                std::cout << (std::holds_alternative<double>(t.rows[0].cells[c]) ? "| ---: " : "| --- ");
            std::cout << "|\n";
        }
        for (const Row& row : t.rows) line([&](std::size_t c) { return t.text(row, c); }, bar(row));
        std::cout << std::flush;
    }

    std::string format_, names_;
    bool first_ = true;
};

// An earlier run's JSON: its rows by model, table and name. Plain tests, also llama-bench's, are the table "test".
class Earlier {
  public:
    explicit Earlier(const std::string& path) {
        if (path.empty()) return;
        const llm::detail::JsonDocument document(llm::detail::File(path).read_all(1 << 28), path);
        for (const auto& object : document.root().array()) {
            const auto text = [&](const char* key) {
                const auto* value = object.find(key);
                return value && value->is<std::string_view>() ? std::string(value->string()) : "";
            };
            const auto number = [&](const char* key) {
                const auto* value = object.find(key);
                return value && value->is<double>() ? value->number() : NAN;
            };
            const bool test = text("table").empty();
            const std::string name =
                test ? test_name(number("n_prompt"), number("n_gen"), number("n_depth")) : text("row");
            auto& values = rows_[key(text("model_filename"), test ? "test" : text("table"), name)];
            for (const auto& [field, value] : object.members())
                if (value.is<double>()) values[std::string(field)] = value.number();
            if (test) values["spread"] = number("stddev_ts") / number("avg_ts");
        }
    }
    static std::string test_name(double prompt, double generate, double depth) {
        return (prompt > 0 ? "pp" : "tg") + format("%.0f", prompt + generate) +
               (depth > 0 ? format(" @ d%.0f", depth) : "");
    }
    bool empty() const { return rows_.empty(); }

    // All rows that both runs have: more than 1 is faster, or better.
    Table compare(const std::vector<Table>& tables) const {
        Table out{"",
                  "compare",
                  "Beside the earlier run: more than 1 is better; marked where it is beyond the spread of both",
                  0,
                  false,
                  {{"row", "what"},
                   {"column", "in"},
                   {"before", "before", 2},
                   {"now", "now", 2},
                   {"ratio", "ratio", 3},
                   {"verdict", ""}}};
        for (const Table& t : tables) {
            if (!t.measure) continue;
            for (const Row& row : t.rows) {
                const auto found = rows_.find(key(t.model, t.name, t.text(row, 0)));
                if (found == rows_.end()) continue;
                const Column& column = t.columns[usize(t.measure)];
                const auto value = found->second.find(column.key), noise = found->second.find("spread");
                const double now = std::get<double>(row.cells[usize(t.measure)]);
                if (value == found->second.end() || !(value->second > 0) || !(now > 0)) continue;
                const double ratio = t.less_is_better ? value->second / now : now / value->second;
                const double beyond = 2 * std::hypot(row.spread, noise == found->second.end() ? NAN : noise->second);
                out.rows.push_back({{t.model + (t.model.empty() ? "" : " ") + t.name + " " + t.text(row, 0),
                                     std::string(column.heading), value->second, now, ratio,
                                     std::string(!(std::fabs(ratio - 1) > beyond) ? ""
                                                 : ratio > 1                      ? "better"
                                                                                  : "WORSE")}});
            }
        }
        return out;
    }
  private:
    // Models by their file's name: a directory is no part of what was measured.
    static std::string key(const std::string& model, const std::string& table, const std::string& row) {
        return model.substr(model.find_last_of('/') + 1) + '\n' + table + '\n' + row;
    }
    std::map<std::string, std::map<std::string, double>> rows_;
};

// ---- The machine: what memory and the cores can do at most, by the instructions that llm.h's kernels use

#ifdef __clang__
#define BENCH_UNROLL _Pragma("unroll")
#else
#define BENCH_UNROLL _Pragma("GCC unroll 16")
#endif

// Reads n bytes, a multiple of 1024, as four streams with prefetch: the fastest of the ways that were tried.
typedef std::uint64_t Line __attribute__((vector_size(64), may_alias));
#define BENCH_READ(function, isa)                                                \
    isa void function(const std::uint8_t* p, std::size_t n) {                    \
        Line total[4] = {};                                                      \
        for (const std::uint8_t* end = p + n / 4; p < end; p += 256) {           \
            BENCH_UNROLL for (int s = 0; s < 4; ++s) {                           \
                const std::uint8_t* stream = p + usize(s) * (n / 4);             \
                BENCH_UNROLL for (int k = 0; k < 4; ++k) {                       \
                    __builtin_prefetch(stream + 2048 + 64 * k);                  \
                    total[k] += *reinterpret_cast<const Line*>(stream + 64 * k); \
                }                                                                \
            }                                                                    \
        }                                                                        \
        __asm__ volatile("" : : "r"(total) : "memory");                          \
    }

// Twelve chains of one instruction, so that neither its latency nor loads limit it.
#define BENCH_PEAK(function, isa, Vector, value, step)                                                   \
    isa void function(int rounds) {                                                                      \
        volatile short four = 4;                                                                         \
        const auto x = value(four);                                                                      \
        Vector sums[12];                                                                                 \
        BENCH_UNROLL for (int k = 0; k < 12; ++k) sums[k] = Vector{};                                    \
        __asm__ volatile("" : : "r"(sums) : "memory"); /* they may differ: no chain is another's copy */ \
        for (int i = 0; i < rounds; ++i) {                                                               \
            BENCH_UNROLL for (int k = 0; k < 12; ++k) sums[k] = step(sums[k], x);                        \
        }                                                                                                \
        __asm__ volatile("" : : "r"(sums) : "memory");                                                   \
    }

struct Probe {
    const char* kernels;  // of llm.h, whose instructions these are
    void (*read)(const std::uint8_t*, std::size_t);
    void (*int8_peak)(int rounds);
    void (*f32_peak)(int rounds);
    int int8_operations, f32_operations;  // of one instruction (or those that make a dot product together)
};

#define BENCH_NOTHING
#define BENCH_SAME(x) (x)
#define BENCH_PLAIN_STEP(sum, x) (sum * x + x)
BENCH_READ(read_plain, BENCH_NOTHING)
BENCH_PEAK(int8_plain, BENCH_NOTHING, int, BENCH_SAME, BENCH_PLAIN_STEP)
BENCH_PEAK(f32_plain, BENCH_NOTHING, float, float, BENCH_PLAIN_STEP)
constexpr Probe kScalar = {"scalar", read_plain, int8_plain, f32_plain, 2, 2};

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LLM_NO_SIMD)
#define BENCH_AVX2 __attribute__((target("avx2,fma")))
#define BENCH_AVX2_DOT(sum, x) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(sum, x), x), x))
#define BENCH_AVX2_FMA(sum, x) _mm256_fmadd_ps(sum, x, x)
BENCH_READ(read_avx2, BENCH_AVX2)
BENCH_PEAK(int8_avx2, BENCH_AVX2, __m256i, _mm256_set1_epi32, BENCH_AVX2_DOT)
BENCH_PEAK(f32_avx2, BENCH_AVX2, __m256, _mm256_set1_ps, BENCH_AVX2_FMA)
#define BENCH_AVX512 __attribute__((target("avx512f,avx512vnni")))
#define BENCH_AVX512_DOT(sum, x) _mm512_dpbusd_epi32(sum, x, x)
#define BENCH_AVX512_FMA(sum, x) _mm512_fmadd_ps(sum, x, x)
BENCH_READ(read_avx512, BENCH_AVX512)
BENCH_PEAK(int8_avx512, BENCH_AVX512, __m512i, _mm512_set1_epi32, BENCH_AVX512_DOT)
BENCH_PEAK(f32_avx512, BENCH_AVX512, __m512, _mm512_set1_ps, BENCH_AVX512_FMA)
constexpr Probe kProbes[] = {kScalar,
                             {"avx2", read_avx2, int8_avx2, f32_avx2, 64, 16},
                             {"avx512", read_avx512, int8_avx512, f32_avx512, 128, 32}};
#elif defined(__GNUC__) && defined(__aarch64__) && !defined(LLM_NO_SIMD)
#define BENCH_NEON_X(x) vdupq_n_s8(std::int8_t(x))
#define BENCH_NEON_DOT(sum, x) vpadalq_s16(sum, vmull_s8(vget_low_s8(x), vget_low_s8(vreinterpretq_s8_s32(sum))))
#define BENCH_NEON_F32(x) vdupq_n_f32(float(x))
#define BENCH_NEON_FMA(sum, x) vfmaq_f32(x, sum, x)
BENCH_PEAK(int8_neon, BENCH_NOTHING, int32x4_t, BENCH_NEON_X, BENCH_NEON_DOT)
BENCH_PEAK(f32_neon, BENCH_NOTHING, float32x4_t, BENCH_NEON_F32, BENCH_NEON_FMA)
#ifdef __APPLE__
#define BENCH_DOTPROD
#else
#define BENCH_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define BENCH_NEON_SDOT(sum, x) vdotq_s32(sum, x, x)
BENCH_PEAK(int8_neon_dot, BENCH_DOTPROD, int32x4_t, BENCH_NEON_X, BENCH_NEON_SDOT)
constexpr Probe kProbes[] = {kScalar,
                             {"neon", read_plain, int8_neon, f32_neon, 16, 8},
                             {"neon_dot", read_plain, int8_neon_dot, f32_neon, 32, 8}};
#else
constexpr Probe kProbes[] = {kScalar};
#endif

struct Roof {
    double read = 0, int8 = 0, f32 = 0;  // bytes and operations per second
};

class Machine {
  public:
    explicit Machine(int threads)
        : buffer_(std::min(std::size_t{1} << 30, std::size_t(available_memory() / 4) >> 20 << 20)) {
        const std::string name = llm::detail::choose_kernels().name;
        for (const Probe& p : kProbes)
            if (p.kernels == name) probe_ = &p;
        llm::detail::ThreadPool pool(threads);
        pool.for_ranges(int(buffer_.bytes() >> 20), 1, [&](int begin, int end, int) {
            std::fill(buffer_.as<char>() + (usize(begin) << 20), buffer_.as<char>() + (usize(end) << 20), char(1));
        });
        for (int t = 1; t < threads; t *= 2) measure(t);
        measure(threads);
    }
    struct Measured {
        int threads;
        Roof roof;
        double copy, read_spread;
    };
    const std::vector<Measured>& measured() const { return measured_; }
    const char* kernels() const { return probe_->kernels; }
    double buffer_bytes() const { return double(buffer_.bytes()); }

    // How fast so many bytes are read again and again: where they fit into a cache, faster than memory.
    Samples read_rates(llm::detail::ThreadPool& pool, double bytes) const {
        constexpr int kPieces = 64;  // of each thread
        const std::size_t pieces = usize(pool.size() * kPieces);
        const std::size_t piece =
            std::max<std::size_t>(1, std::min(std::size_t(bytes), buffer_.bytes()) / pieces / 1024) * 1024;
        return rates(double(piece * pieces), [&] {
            pool.for_each(int(pieces),
                          [&](int i) { probe_->read(buffer_.as<std::uint8_t>() + usize(i) * piece, piece); });
        });
    }
  private:
    // Per second, of runs that take a third of a second together.
    template <class Body> static Samples rates(double amount, const Body& body) {
        body();
        Samples results;
        for (const auto start = Clock::now();
             results.size() < 4 || (seconds_since(start) < 0.33 && results.size() < 1000);) {
            const auto run = Clock::now();
            body();
            results.push_back(amount / seconds_since(run));
        }
        return results;
    }
    void measure(int threads) {
        constexpr int kRounds = 1 << 17;
        llm::detail::ThreadPool pool(threads);
        const Samples read = read_rates(pool, buffer_bytes());
        const std::size_t half = buffer_.bytes() / 2, part = half / usize(threads * 64);
        const Samples copy = rates(double(2 * part * usize(threads * 64)), [&] {
            pool.for_each(threads * 64, [&](int i) {
                std::memcpy(buffer_.as<char>() + usize(i) * part, buffer_.as<char>() + half + usize(i) * part, part);
            });
        });
        const auto peak = [&](void (*chains)(int), int operations) {
            const Samples found = rates(12.0 * kRounds * operations * threads * 4,
                                        [&] { pool.for_each(threads * 4, [&](int) { chains(kRounds); }); });
            return *std::max_element(found.begin(), found.end());
        };
        measured_.push_back({threads,
                             {median(read), peak(probe_->int8_peak, probe_->int8_operations),
                              peak(probe_->f32_peak, probe_->f32_operations)},
                             median(copy),
                             spread(read)});
    }

    const Probe* probe_ = &kScalar;
    llm::detail::Buffer buffer_;
    std::vector<Measured> measured_;
};

std::string first_line(const std::string& path) {
    std::string line;
    std::getline(std::ifstream(path) >> std::ws, line);
    return line;
}

std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.rfind("model name\t: ", 0) == 0) return line.substr(13);
    return "unknown";
}

std::string caches() {
    std::string text;
    for (int i = 0; i < 8; ++i) {
        const std::string cache = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
        const std::string type = first_line(cache + "type"), size = first_line(cache + "size");
        if (type.empty() || type == "Instruction") continue;
        const int kb = std::atoi(size.c_str());
        text += (text.empty() ? "L" : ", L") + first_line(cache + "level") +
                (kb < 1024 ? format(" %d KB", kb) : format(" %d MB", kb / 1024));
    }
    return text.empty() ? "unknown" : text;
}

// How much of this process's memory lies in huge pages.
std::string huge_pages() {
    double all = 0, huge = 0;
    std::ifstream rollup("/proc/self/smaps_rollup");
    for (std::string name, rest; rollup >> name; std::getline(rollup, rest)) {
        if (name == "Anonymous:") rollup >> all;
        if (name == "AnonHugePages:") rollup >> huge;
    }
    return all > 0 ? format("%.0f %%", 100 * huge / all) : "unknown";
}

// ---- Plain tests, as llama-bench does them

struct Test {
    int prompt, generate, depth;
    std::string name() const { return Earlier::test_name(prompt, generate, depth); }
};

// Brings the session to the test's depth, then appends its tokens: a prompt at once, generated ones one by one. The
// work does not depend on what the tokens are, so none are sampled. Returns nanoseconds.
double measure(llm::Session& session, const Test& test, const std::vector<int>& tokens) {
    session.rewind(std::min(session.position(), test.depth));
    if (session.position() < test.depth) session.forward(tokens.data(), test.depth - session.position());
    const auto start = Clock::now();
    if (test.prompt > 0) session.forward(tokens.data(), test.prompt);
    for (int i = 0; i < test.generate; ++i) session.forward(tokens.data() + i, 1);
    return 1e9 * seconds_since(start);
}

// llama-bench's fields, or a line of a table.
void print_test(Output& out, const llm::Session& session, const std::string& name, const Test& test, const Samples& ns,
                bool first) {
    const llm::ModelInfo& info = session.model().info();
    Samples ts;
    for (const double t : ns) ts.push_back((test.prompt + test.generate) / t * 1e9);
    if (out.prose()) {
        if (first) out.line("| model | MB | threads | test | tokens/s |\n| --- | ---: | ---: | ---: | ---: |");
        out.line(format("| %s | %.2f | %d | %s | %.2f ± %.2f |", type_of(session.model()).c_str(),
                        double(info.weight_bytes) / 1e6, session.threads(), test.name().c_str(), mean(ts),
                        deviation(ts)));
        return;
    }
    Output::Fields f(out.json());
    char time[32];
    const std::time_t now = std::time(nullptr);
    std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    f.add_text("cpu_info", processor());
    f.add_text("model_filename", name);
    f.add_text("model_type", type_of(session.model()));
    f.add("model_size", info.weight_bytes);
    f.add("model_n_params", info.parameters);
    f.add("n_threads", session.threads());
    f.add("n_prompt", test.prompt);
    f.add("n_gen", test.generate);
    f.add("n_depth", test.depth);
    f.add_text("test_time", time);
    for (const auto& [unit, x] : {std::pair<std::string, Samples>("ns", ns), {"ts", ts}}) {
        std::string samples;
        for (const double v : x) samples += (samples.empty() ? "" : ", ") + std::to_string(v);
        f.add("avg_" + unit, mean(x));
        f.add("stddev_" + unit, deviation(x));
        f.add("samples_" + unit, (out.json() ? '[' : '"') + samples + (out.json() ? ']' : '"'));
    }
    out.object(f);
}

void run_tests(Options o) {
    const bool is_shape = !o["--shape"].empty();
    const std::string name = is_shape ? o["--shape"] : o["-m"].empty() ? "models/gemma3-tiny" : o["-m"];
    const Earlier earlier(o["--compare"]);
    const llm::LoadOptions load = load_options(o);
    const llm::Model model = make_model(name, is_shape, load);
    if (o["-p"].empty()) o["-p"] = std::to_string(std::min(512, model.config().context_length));

    std::vector<Test> tests;
    int longest = 1;
    for (const int depth : numbers(o, "-d", 0)) {
        for (const int n : numbers(o, "-p", 0)) tests.push_back({n, 0, depth});
        for (const int n : numbers(o, "-n", 0)) tests.push_back({0, n, depth});
    }
    for (const Test& t : tests) longest = std::max(longest, t.depth + t.prompt + t.generate);
    const std::vector<int> tokens = random_tokens(model, longest);

    llm::Session session(model, longest, load.threads);
    const int repetitions = numbers(o, "-r", 1)[0];
    Output out(o["-o"]);
    Table results{name, "test", "", 1, false, {{"row", "test"}, {"avg_ts", "tokens/s", 2}}};
    for (const Test& test : tests) {
        if (test.prompt + test.generate == 0) continue;
        Samples ns, ts;
        const Progress progress(o);
        // To warm up, as llama-bench does.
        measure(session, {test.prompt, std::min(test.generate, 1), test.depth}, tokens);
        for (int i = 1; i <= repetitions; ++i) {
            progress(format("%s: %d of %d", test.name().c_str(), i, repetitions));
            ns.push_back(measure(session, test, tokens));
            ts.push_back((test.prompt + test.generate) / ns.back() * 1e9);
        }
        progress("");
        print_test(out, session, name, test, ns, results.rows.empty());
        results.rows.push_back({{test.name(), mean(ts)}, deviation(ts) / mean(ts)});
    }
    if (!earlier.empty()) out.table(earlier.compare({results}));
    out.end();
}

// ---- The report: what is measured of a model

// The parts of a step, and the step itself. `waiting` is what the calling thread waits for the others at the ends of
// parallel regions, `other` what no part accounts for.
enum Part {
    kEmbedding,
    kNorm,
    kQkv,
    kRope,
    kAttention,
    kAttnOut,
    kUp,
    kActivation,
    kDown,
    kHead,
    kSampling,
    kWaiting,
    kOther,
    kStep
};
constexpr const char* kPartNames[] = {"embedding",  "norm", "qkv",     "rope",     "attention", "attn_out", "up",
                                      "activation", "down", "lm_head", "sampling", "waiting",   "other",    "step"};
constexpr int kParts = kStep + 1;

// Sums over steps.
struct Profile {
    struct Sums {
        double seconds = 0, waited = 0, bytes = 0, operations = 0;
        double total() const { return seconds + waited; }
    };
    Sums parts[kParts];
    int steps = 0;

    void add(const llm::Timing& t) {
        int p = 0;
        while (p < kParts && std::string_view(t.part) != kPartNames[p]) ++p;
        if (p == kParts) return;
        const bool step = p == kStep;
        Sums& part = parts[p];
        part.seconds += t.seconds - (step ? 0 : t.waited);
        part.waited += step ? 0 : t.waited;
        part.bytes += double(t.bytes);
        part.operations += double(t.operations);
        steps += step;
    }
    void add(const Profile& other) {
        for (int p = 0; p < kParts; ++p) {
            parts[p].seconds += other.parts[p].seconds;
            parts[p].waited += other.parts[p].waited;
            parts[p].bytes += other.parts[p].bytes;
            parts[p].operations += other.parts[p].operations;
        }
        steps += other.steps;
    }
    // When all is added: what follows from the parts together.
    void close() {
        double known = 0;
        for (int p = 0; p < kWaiting; ++p) {
            known += parts[p].total();
            parts[kWaiting].seconds += parts[p].waited;
            parts[kStep].bytes += parts[p].bytes;
            parts[kStep].operations += parts[p].operations;
        }
        parts[kOther].seconds = parts[kStep].seconds - known;
    }
};

struct Prompt {
    int tokens = 0;
    Samples seconds{};  // to the first token, one for each round
    Samples steps{};    // seconds of the steps of generation that came after it
    Samples rates{};    // tokens/s of these, one for each round
};

struct Measurement {
    std::string name, type;
    bool gpt2 = false, q8 = true;
    int context = 0, profiled_prompt = 0;
    double load_s = 0, weight_bytes = 0, session_bytes = 0, full_context_bytes = 0, profile_cost = 0;
    std::string huge_pages;
    Samples read{};  // rates of as many bytes as the weights have
    Roof roof;
    std::vector<Prompt> prompts{};
    std::vector<Profile> decode{}, prompt{};  // one for each round

    double depth_of(const Prompt& p) const { return p.tokens == 1 ? 0 : p.tokens; }
};

// One model: load it, then go through the prompts and what follows them several times, so that what varies slowly
// shows in the spread.
class Measuring {
  public:
    Measuring(const Options& o, const Machine& machine, const std::string& name, bool is_shape)
        : name_(name), progress_(o), rounds_(numbers(o, "-r", 1)[0]) {
        progress_(name + ": loading");
        const llm::LoadOptions load = load_options(o);
        const auto start = Clock::now();
        const llm::Model model = make_model(name, is_shape, load);
        result.load_s = seconds_since(start);
        lengths_ = lengths(o, model.config().context_length);
        result.context = std::min(model.config().context_length, std::max(lengths_.back() + kSteps, 4 * kSteps));
        llm::Session session(model, result.context, load.threads);
        tokens_ = random_tokens(model, lengths_.back());
        vocab_ = model.config().vocab_size;
        describe(model);

        llm::detail::ThreadPool pool(session.threads());
        result.read = machine.read_rates(pool, result.weight_bytes);
        warm_up(session);
        for (const int n : lengths_) result.prompts.push_back({n});
        for (int round = 0; round < rounds_; ++round)
            for (Prompt& p : result.prompts) {
                if (sum(p.seconds) * (round + 1) > kPatience * round && round > 0) continue;  // too slow to do it again
                progress_(format("%s: %d tokens, round %d of %d", name_.c_str(), p.tokens, round + 1, rounds_));
                measure(session, p);
            }
        const Samples again = machine.read_rates(pool, result.weight_bytes);
        result.read.insert(result.read.end(), again.begin(), again.end());
        result.roof = machine.measured().back().roof;
        result.roof.read = median(result.read);
        for (std::vector<Profile>* profiles : {&result.decode, &result.prompt})
            for (Profile& p : *profiles) p.close();
    }
    Measurement result;
  private:
    static constexpr int kSteps = 48;        // at most, after a prompt; twice as many after the first
    static constexpr double kPatience = 15;  // seconds for the rounds of one prompt
    static constexpr double kSeconds = 1;    // for the steps after it

    // Ascending, those that fit; the longest that does where the usual ones are too long.
    std::vector<int> lengths(const Options& o, int context) const {
        std::vector<int> wanted = {1, 128, 512, 2048}, fit;
        if (!o.at("-p").empty()) wanted = numbers(o, "-p", 1);
        else if (context - kSteps < wanted.back()) wanted.push_back(context / 8 * 7);
        std::sort(wanted.begin(), wanted.end());
        for (const int n : wanted)
            if (n <= context - kSteps && (fit.empty() || fit.back() < n)) fit.push_back(n);
        if (fit.empty())
            throw llm::Error(format("-p: no prompt fits into the context of %d: choose shorter ones", context));
        return fit;
    }
    void describe(const llm::Model& model) {
        result.name = name_;
        result.type = type_of(model);
        result.gpt2 = is_gpt2(model);
        result.q8 = model.dtype() == llm::DType::q8_0;
        result.weight_bytes = double(model.info().weight_bytes);
        result.session_bytes = double(model.session_bytes(result.context));
        result.full_context_bytes = double(model.session_bytes(model.config().context_length));
        result.huge_pages = huge_pages();
        for (const int n : lengths_)
            if (n <= 512) result.profiled_prompt = n;
        if (result.profiled_prompt <= 1) result.profiled_prompt = lengths_.back();
    }
    void warm_up(llm::Session& session) {
        const int n = std::min(64, lengths_.back());
        logits_ = session.forward(tokens_.data(), n);
        for (int i = 0; i < 8 && session.position() < session.context(); ++i) step(session, nullptr);
    }
    // Samples a token and appends it. Returns seconds.
    double step(llm::Session& session, Profile* profile) {
        const auto start = Clock::now();
        const int id = sampler_.sample(logits_, vocab_);
        if (profile) {
            profile->parts[kSampling].seconds += seconds_since(start);
            profile->parts[kStep].seconds += seconds_since(start);
        }
        logits_ = session.forward(&id, 1);
        return seconds_since(start);
    }
    Samples steps(llm::Session& session, int most, Profile* profile) {
        Samples seconds;
        most = std::min(most, session.context() - session.position());
        while (int(seconds.size()) < most && (seconds.size() < 8 || sum(seconds) < kSeconds))
            seconds.push_back(step(session, profile));
        return seconds;
    }
    void measure(llm::Session& session, Prompt& p) {
        Profile profile;
        const auto listen = [&](const llm::Timing& t) { profile.add(t); };
        session.rewind(0);
        if (p.tokens == result.profiled_prompt) session.on_timing(listen);
        const auto start = Clock::now();
        logits_ = session.forward(tokens_.data(), p.tokens);
        sampler_.sample(logits_, vocab_);
        p.seconds.push_back(seconds_since(start));
        session.on_timing(nullptr);
        if (p.tokens == result.profiled_prompt) result.prompt.push_back(std::exchange(profile, {}));

        const bool first = p.tokens == lengths_[0];
        const Samples seconds = steps(session, first ? 2 * kSteps : kSteps, nullptr);
        p.rates.push_back(1 / mean(seconds));
        p.steps.insert(p.steps.end(), seconds.begin(), seconds.end());
        if (!first) return;
        session.rewind(p.tokens);  // the same positions again, in parts
        session.on_timing(listen);
        const Samples timed = steps(session, int(seconds.size()), &profile);
        session.on_timing(nullptr);
        costs_.push_back(median(timed) / median(seconds) - 1);
        result.profile_cost = median(costs_);
        result.decode.push_back(profile);
    }

    std::string name_;
    Progress progress_;
    int rounds_, vocab_ = 0;
    std::vector<int> lengths_, tokens_;
    llm::Sampler sampler_;
    const float* logits_ = nullptr;
    Samples costs_;
};

// ---- The report: what is said about it

// The models' own names of the parts.
std::string part_name(const Measurement& m, int p) {
    if (p == kUp) return m.gpt2 ? "c_fc" : "gate+up";
    if (p == kDown) return m.gpt2 ? "c_proj" : "down";
    return kPartNames[p];
}

// One of a model's phases, decode or prompt, in the terms that tables, sentences and the picture need.
struct Phase {
    const Measurement& m;
    bool is_prompt;
    Profile all{};  // of all rounds
    // Seconds that a part would take if only memory, or only arithmetic, limited it at this machine's measured best.
    double memory[kParts] = {}, arithmetic[kParts] = {}, limits[kParts] = {};

    Phase(const Measurement& measured, bool prompt) : m(measured), is_prompt(prompt) {
        for (const Profile& round : rounds()) all.add(round);
        for (const int p : {kEmbedding, kNorm, kQkv, kRope, kAttention, kAttnOut, kUp, kActivation, kDown, kHead}) {
            const bool product = p == kQkv || p == kAttnOut || p == kUp || p == kDown || p == kHead;
            memory[p] = all.parts[p].bytes / m.roof.read;
            arithmetic[p] = all.parts[p].operations / (m.q8 && product ? m.roof.int8 : m.roof.f32);
            limits[p] = std::max(memory[p], arithmetic[p]);
            memory[kStep] += memory[p];
            arithmetic[kStep] += arithmetic[p];
            limits[kStep] += limits[p];
        }
    }
    const std::vector<Profile>& rounds() const { return is_prompt ? m.prompt : m.decode; }
    int tokens() const { return is_prompt ? m.profiled_prompt : 1; }
    double step_ms() const { return 1e3 * all.parts[kStep].seconds / all.steps; }
    double reached() const { return limits[kStep] / all.parts[kStep].seconds; }
    bool by_memory() const { return memory[kStep] > arithmetic[kStep]; }
    // The share of the step that a part takes beyond its limit.
    double loss(int p) const { return std::max(0.0, all.parts[p].seconds - limits[p]) / all.parts[kStep].seconds; }
};

Table step_table(const Phase& phase) {
    const bool prompt = phase.is_prompt;
    const std::string what = prompt ? format("A prompt of %d tokens", phase.tokens()) : "Generating a token at depth 0";
    Table t{phase.m.name,
            prompt ? "prompt_step" : "decode_step",
            what + format(": %.2f ms (solid: what memory or arithmetic take at their measured best)", phase.step_ms()),
            1,
            true,
            {{"part", "part"},
             {"ms", "ms", 3},
             {"percent", "%", 1},
             {"mb", "MB", 2},
             {"gb_s", "GB/s", 1},
             {"percent_of_read", "% of read", 0}}};
    if (prompt)
        std::copy_n(std::begin({Column{"gop", "GOP", 2}, {"gop_s", "GOP/s", 1}, {"percent_of_peak", "% of peak", 0}}),
                    3, &t.columns[3]);
    double longest = 0;
    for (int p = 0; p < kStep; ++p) longest = std::max(longest, phase.all.parts[p].seconds);
    for (int p = 0; p < kParts; ++p) {
        const Profile::Sums& part = phase.all.parts[p];
        const double seconds = part.total(), amount = prompt ? part.operations / 1e9 : part.bytes / 1e6,
                     need = prompt ? phase.arithmetic[p] : phase.memory[p];
        if (!(seconds > 0)) continue;
        Samples rounds;
        for (const Profile& round : phase.rounds()) rounds.push_back(round.parts[p].seconds / round.steps);
        const auto known = [&](double value) { return amount > 0 ? value : NAN; };
        t.rows.push_back({{part_name(phase.m, p), 1e3 * part.seconds / phase.all.steps,
                           100 * part.seconds / phase.all.parts[kStep].seconds, known(amount / phase.all.steps),
                           known(amount / seconds / (prompt ? 1 : 1e3)), known(100 * need / seconds)},
                          spread(rounds),
                          p == kStep ? 0 : part.seconds / longest,
                          std::min(1.0, phase.limits[p] / seconds)});
    }
    return t;
}

// What bounds a phase, how close it is to that, and where the rest goes.
std::string verdict(const Phase& phase) {
    const Profile::Sums& step = phase.all.parts[kStep];
    const double steps = phase.all.steps, rate = phase.tokens() * 1e3 / phase.step_ms();
    std::string text = phase.is_prompt ? "Reading a prompt is " : "Generation is ";
    text += format("%sbound by %s: it runs at %.0f %% of the limit, %.1f of at most %.1f tokens/s",
                   phase.reached() < 0.5 ? "not yet " : "", phase.by_memory() ? "memory" : "arithmetic",
                   100 * phase.reached(), rate, rate / phase.reached());
    text += phase.by_memory()
                ? format(" (%.1f MB a step at %.1f GB/s)", step.bytes / steps / 1e6, phase.m.roof.read / 1e9)
                : format(" (%.1f GOP at %.0f GOP/s)", step.operations / steps / 1e9,
                         step.operations / phase.arithmetic[kStep] / 1e9);
    text += ". Left to gain:";
    int order[kStep];
    std::iota(order, order + kStep, 0);
    std::sort(order, order + kStep, [&](int a, int b) { return phase.loss(a) > phase.loss(b); });
    for (int i = 0; i < 4 && phase.loss(order[i]) > 0.002; ++i)
        text += format("%s %s %.1f %%", i ? "," : "", part_name(phase.m, order[i]).c_str(), 100 * phase.loss(order[i]));
    return text + ".";
}

std::vector<Table> tables_of(const Machine& machine) {
    const auto& last = machine.measured().back();
    Table facts{"", "machine", "", 0, false, {{"row", ""}, {"value", ""}}};
    facts.rows = {{{"processor", processor()}},
                  {{"threads", format("%d, %s kernels", last.threads, machine.kernels())}},
                  {{"caches", caches()}},
                  {{"memory", format("%.1f GB available", available_memory() / 1e9)}},
                  {{"huge pages", huge_pages()}}};
    Table rates{"",
                "bandwidth",
                format("Memory (%.1f GB) and arithmetic, with all threads at once", machine.buffer_bytes() / 1e9),
                1,
                false,
                {{"threads", "threads"},
                 {"read_gb_s", "read GB/s", 1},
                 {"copy_gb_s", "copy GB/s", 1},
                 {"int8_gop_s", "int8 GOP/s", 0},
                 {"f32_gop_s", "f32 GFLOP/s", 0}}};
    for (const auto& m : machine.measured())
        rates.rows.push_back(
            {{std::to_string(m.threads), m.roof.read / 1e9, m.copy / 1e9, m.roof.int8 / 1e9, m.roof.f32 / 1e9},
             m.read_spread,
             m.roof.read / last.roof.read});
    return {facts, rates};
}

std::vector<Table> tables_of(const Measurement& m) {
    Table memory{m.name, "model", m.name + " (" + m.type + ")",
                 0,      false,   {{"row", ""}, {"value", "", 2}, {"unit", ""}}};
    memory.rows = {{{"loading", m.load_s, "s"}},
                   {{"weights", m.weight_bytes / 1e6, "MB, " + m.huge_pages + " of all memory in huge pages"}},
                   {{"KV cache, scratch", m.session_bytes / 1e6,
                     format("MB for %d positions; %.1f MB for all that the model can have", m.context,
                            m.full_context_bytes / 1e6)}},
                   {{"read bandwidth", m.roof.read / 1e9, "GB/s, of as much data as the weights"}},
                   {{"profiling costs", 100 * m.profile_cost, "% of a step"}}};
    Table first{m.name, "first_token", "Time to the first token",
                1,      true,          {{"tokens", "prompt"}, {"ms", "ms", 1}, {"tokens_s", "tokens/s", 1}}};
    Table decode{m.name,
                 "decode",
                 "Generation",
                 1,
                 false,
                 {{"depth", "depth"},
                  {"tokens_s", "tokens/s", 1},
                  {"p50_ms", "p50 ms", 2},
                  {"p95_ms", "p95 ms", 2},
                  {"max_ms", "max ms", 2},
                  {"jitter", "p95/p50", 2},
                  {"steps", "steps"}}};
    double fastest = 0;
    for (const Prompt& p : m.prompts) fastest = std::max(fastest, 1 / median(p.steps));
    for (const Prompt& p : m.prompts) {
        first.rows.push_back(
            {{std::to_string(p.tokens), 1e3 * median(p.seconds), p.tokens / median(p.seconds)}, spread(p.seconds)});
        decode.rows.push_back(
            {{format("%.0f", m.depth_of(p)), 1 / mean(p.steps), 1e3 * median(p.steps), 1e3 * quantile(p.steps, 0.95),
              1e3 * quantile(p.steps, 1), quantile(p.steps, 0.95) / median(p.steps), double(p.steps.size())},
             spread(p.rates),
             1 / median(p.steps) / fastest});
    }
    const Phase decoding(m, false), prompting(m, true);
    Table limits{m.name, "limits",
                 "",     1,
                 false,  {{"row", ""}, {"percent_of_limit", "% of limit", 1}, {"bound_by", ""}, {"verdict", ""}}};
    for (const Phase* phase : {&decoding, &prompting})
        limits.rows.push_back({{phase->is_prompt ? "prompt" : "decode", 100 * phase->reached(),
                                phase->by_memory() ? "memory" : "arithmetic", verdict(*phase)}});
    return {memory, first, decode, step_table(decoding), step_table(prompting), limits};
}

// ---- The report as a picture

constexpr int kWidth = 1600, kHeight = 1000;
constexpr plot::Color kPartColors[kStep] = {
    plot::rgb(0x9a8c7c), plot::rgb(0xb79ad1), plot::rgb(0x3d6fb4), plot::rgb(0x8fc1e3), plot::rgb(0xd1495b),
    plot::rgb(0x4f9d7a), plot::rgb(0xe9a63a), plot::rgb(0xf2d38b), plot::rgb(0xbf6f2a), plot::rgb(0x2f4858),
    plot::rgb(0x8d5a97), plot::rgb(0xbab5aa), plot::rgb(0xd9d5cb)};
std::string short_name(const Measurement& m) { return m.name.substr(m.name.find_last_of('/') + 1); }

constexpr plot::Color kModelColors[] = {plot::rgb(0x3d6fb4), plot::rgb(0xd1495b), plot::rgb(0x4f9d7a)};

// Labels in a column, none above another, each with a thread to its point.
struct Labels {
    struct Label {
        double x, y, at;
        std::string text;
        plot::Color color;
    };
    std::vector<Label> all{};
    void draw(plot::Canvas& c, double column, double lowest) {
        constexpr double kPitch = 19;
        std::sort(all.begin(), all.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
        for (std::size_t i = 0; i < all.size(); ++i) all[i].at = std::max(all[i].y, i ? all[i - 1].at + kPitch : 0);
        for (std::size_t i = all.size(); i-- > 0;)
            all[i].at = std::min(all[i].at, i + 1 < all.size() ? all[i + 1].at - kPitch : lowest);
        for (const Label& l : all) {
            c.line(l.x, l.y, column, l.at, 1, l.color, 0.6);
            c.rect(column + 3, l.at - 9, column + 9 + plot::Canvas::text_width(l.text, 11), l.at + 9, plot::kPanel,
                   0.75);
            c.text(column + 6, l.at + 5, l.text, 11, plot::kInk);
        }
    }
};

void draw_roofline(plot::Canvas& c, const Machine& machine, const std::vector<Measurement>& models) {
    const Roof roof = machine.measured().back().roof;
    double lowest = roof.f32 / 1e9;
    std::vector<Phase> phases;
    for (const Measurement& m : models)
        for (const bool prompt : {false, true}) phases.emplace_back(m, prompt);
    const auto rate = [](const Profile::Sums& p) { return p.operations / p.total() / 1e9; };
    for (const Phase& phase : phases)
        for (const Profile::Sums& p : phase.all.parts)
            if (p.operations > 0 && p.bytes > 0) lowest = std::min(lowest, rate(p));
    const plot::Axis x{0.1, 4000, 96, 880, true},
        y{std::pow(10, std::floor(std::log10(lowest))), roof.int8 / 1e9 * 3, 560, 130, true};
    plot::axes(c, "Roofline: each part of a step, decode and prompt", x, y, "operations per byte read", "GOP/s");

    // Below the slopes memory is the limit, below the levels arithmetic.
    const auto slope = [&](double bandwidth, bool dashed) {
        const double from = std::max(x.low, y.low * 1e9 / bandwidth), to = std::min(x.high, roof.int8 / bandwidth);
        const auto at = [&](double intensity) { return y(intensity * bandwidth / 1e9); };
        if (dashed) c.dashes(x(from), at(from), x(to), at(to), 1.5, plot::kFaint);
        else c.line(x(from), at(from), x(to), at(to), 3, plot::kInk);
    };
    const auto level = [&](double peak, const std::string& name) {
        c.line(x(peak / roof.read), y(peak / 1e9), x(x.high), y(peak / 1e9), 3, plot::kInk);
        c.text(x(peak / roof.read) + 48, y(peak / 1e9) - 9, name, 11, plot::kInk);
    };
    for (const Measurement& m : models) slope(m.roof.read, true);
    slope(roof.read, false);
    c.text(x.from + 14, y.to + 24, format("memory %.1f GB/s", roof.read / 1e9), 11, plot::kInk);
    c.text(x.to - 10, y.from - 50, "discs: decode, squares: prompt; larger: more of the time", 10, plot::kFaint, 1);
    if (models.size() > 1)
        c.text(x.to - 10, y.from - 31, "named: " + short_name(models.back()) + ", pale: the others", 10, plot::kFaint,
               1);
    c.text(x.to - 10, y.from - 12, "dashed: reading as much data as a model has", 10, plot::kFaint, 1);
    level(roof.int8, format("int8 %.0f GOP/s", roof.int8 / 1e9));
    level(roof.f32, format("f32 %.0f GFLOP/s", roof.f32 / 1e9));

    for (const Phase& phase : phases) {
        const bool named = &phase.m == &models.back();
        Labels labels;
        for (int p = 0; p < kStep; ++p) {
            const Profile::Sums& part = phase.all.parts[p];
            if (!(part.operations > 0 && part.bytes > 0)) continue;
            const double px = x(part.operations / part.bytes), py = y(rate(part));
            const double r = 4 + 14 * std::sqrt(part.seconds / phase.all.parts[kStep].seconds);
            const auto shape = phase.is_prompt ? &plot::Canvas::square : &plot::Canvas::disc;
            (c.*shape)(px, py, r + 1.5, plot::kPanel, named ? 1.0 : 0.6);
            (c.*shape)(px, py, r, kPartColors[p], named ? 1.0 : 0.45);
            if (named) labels.all.push_back({px, py, 0, part_name(phase.m, p), kPartColors[p]});
        }
        if (phase.is_prompt) labels.draw(c, x.to - 104, y.from - 12);
        else labels.draw(c, x(9), y.from - 80);
    }
}

// Each model's step and prompt as a bar of its parts, above what they take at the machine's limits.
void draw_steps(plot::Canvas& c, const std::vector<Measurement>& models) {
    const double left = 1080, right = 1485, top = 130, bottom = 560;
    c.text(left, top - 16, "Where the time goes; below, the limit", 15, plot::kInk, 0, true);
    const double pitch = std::min(110.0, (bottom - top) / double(2 * models.size())),
                 height = std::min(30.0, pitch * 0.42);
    double y = top + 6;
    for (const Measurement& m : models)
        for (const bool prompt : {false, true}) {
            const Phase phase(m, prompt);
            double at = left, end = left;
            const double scale = (right - left) / phase.all.parts[kStep].seconds;
            for (int p = 0; p < kStep; ++p) {
                const double width = std::max(0.0, phase.all.parts[p].seconds) * scale;
                c.rect(at, y, at + width, y + height, kPartColors[p]);
                const std::string name = part_name(m, p);
                if (plot::Canvas::text_width(name, 9) + 8 < width)
                    c.text(at + width / 2, y + height / 2 + 4.5, name, 9, plot::kPanel, 0.5);
                at += width;
                c.rect(end, y + height + 2, end + phase.limits[p] * scale, y + height * 1.45, kPartColors[p], 0.75);
                end += phase.limits[p] * scale;
            }
            c.text(end + 7, y + height * 1.45, format("limit: %.0f %%", 100 * phase.reached()), 11, plot::kInk);
            c.text(left - 10, y + 12, short_name(m), 11, plot::kInk, 1);
            c.text(left - 10, y + 30,
                   prompt ? format("%d tokens, %.0f ms", phase.tokens(), phase.step_ms())
                          : format("step, %.2f ms", phase.step_ms()),
                   10, plot::kFaint, 1);
            y += pitch;
        }
}

void draw_depths(plot::Canvas& c, const std::vector<Measurement>& models) {
    double deepest = 1, fastest = 0;
    for (const Measurement& m : models)
        for (const Prompt& p : m.prompts) {
            deepest = std::max(deepest, double(p.tokens));
            fastest = std::max(fastest, 1 / median(p.steps));
        }
    const plot::Axis x{0, deepest * 1.04, 96, 740}, y{0, fastest * 1.12, 925, 690};
    plot::axes(c, "Generation against depth", x, y, "tokens before", "tokens/s");
    Labels names;
    for (std::size_t i = 0; i < models.size(); ++i) {
        const plot::Color color = kModelColors[i % std::size(kModelColors)];
        double last_x = 0, last_y = 0;
        for (const Prompt& p : models[i].prompts) {
            const double px = x(models[i].depth_of(p)), py = y(1 / median(p.steps));
            if (&p != &models[i].prompts[0]) c.line(last_x, last_y, px, py, 3, color);
            c.line(px, y(1 / quantile(p.steps, 0.95)), px, std::max(y.to, y(1 / quantile(p.steps, 0.05))), 1.5, color,
                   0.7);
            c.disc(px, py, 5, color);
            last_x = px, last_y = py;
        }
        names.all.push_back({last_x, last_y, 0, short_name(models[i]), color});
    }
    names.draw(c, x.to + 14, y.from - 5);
}

void draw_histogram(plot::Canvas& c, const std::vector<Measurement>& models) {
    constexpr int kBins = 48;
    constexpr double kLow = 0.8, kHigh = 1.6;
    const plot::Axis x{kLow, kHigh, 960, 1560};
    const double top = 690, bottom = 925, pitch = (bottom - top) / double(models.size());
    plot::axes(c, "How steady the steps at depth 0 are", x, {0, 1, bottom, top},
               "time of a step, relative to the median (ends: and beyond)", "steps", 8, 0);
    for (std::size_t i = 0; i < models.size(); ++i) {
        const Samples& steps = models[i].prompts[0].steps;
        const double base = top + pitch * double(i + 1);
        int bins[kBins] = {};
        for (const double s : steps)
            ++bins[std::clamp(int((s / median(steps) - kLow) / (kHigh - kLow) * kBins), 0, kBins - 1)];
        const double scale = (pitch - 30) / *std::max_element(bins, bins + kBins), width = (x.to - x.from) / kBins;
        for (int b = 0; b < kBins; ++b)
            if (bins[b])
                c.rect(x.from + b * width + 1, base - std::max(2.0, bins[b] * scale), x.from + (b + 1) * width - 1,
                       base, kModelColors[i % std::size(kModelColors)]);
        c.rect(x.from, base - 0.5, x.to, base + 0.5, plot::kFaint);
        c.text(x.to - 8, base - pitch + 22,
               format("%s: p50 %.2f ms, p95 %.2f, max %.2f", short_name(models[i]).c_str(), 1e3 * median(steps),
                      1e3 * quantile(steps, 0.95), 1e3 * quantile(steps, 1)),
               10, plot::kInk, 1);
    }
}

// What the picture shows in a line.
std::string headline(const std::vector<Measurement>& models) {
    std::string text = "llm.h";
    for (const bool prompt : {false, true}) {
        double low = 1, high = 0;
        int memory = 0;
        for (const Measurement& m : models) {
            const Phase phase(m, prompt);
            low = std::min(low, phase.reached()), high = std::max(high, phase.reached());
            memory += phase.by_memory();
        }
        text += format(prompt ? ", reads prompts at %.0f" : ": generates at %.0f", 100 * low) +
                (std::lround(100 * low) < std::lround(100 * high) ? format("-%.0f", 100 * high) : "") +
                format(" %% of the %s limit", 2 * memory > int(models.size()) ? "memory" : "arithmetic");
    }
    return text;
}

void draw(const Machine& machine, const std::vector<Measurement>& models, const std::string& path) {
    plot::Canvas c(kWidth, kHeight, plot::rgb(0xf7f4ec));
    c.text(40, 50, headline(models), 18, plot::kInk, 0, true);
    c.text(40, 82,
           format("%s, %d threads, %s kernels, %s", processor().c_str(), machine.measured().back().threads,
                  machine.kernels(), caches().c_str()),
           11, plot::kFaint);
    double at = 960;
    for (int p = 0; p < kStep; ++p) {
        const std::string name = p == kUp ? "gate+up, c_fc" : p == kDown ? "down, c_proj" : kPartNames[p];
        if (p == kAttnOut || p == kDown) at = 960;
        const double y = 588 + 22 * (p >= kDown ? 2 : p >= kAttnOut ? 1 : 0);
        c.rect(at, y - 11, at + 12, y + 1, kPartColors[p]);
        c.text(at + 18, y, name, 10, plot::kInk);
        at += plot::Canvas::text_width(name, 10) + 42;
    }
    draw_roofline(c, machine, models);
    draw_steps(c, models);
    draw_depths(c, models);
    draw_histogram(c, models);
    c.save(path);
}

void print_tables(Output& out, const std::vector<Table>& tables) {
    for (const Table& t : tables) {
        if (t.name != "limits" || !out.prose()) out.table(t);
        else
            for (const Row& row : t.rows) out.line("\n" + wrapped(std::get<std::string>(row.cells.back())));
    }
}

void report(const Options& o) {
    const bool q8 = o.at("--dtype") == "q8_0", is_shape = o.at("-m").empty();
    std::vector<std::string> names;
    if (!is_shape) names = {o.at("-m")};
    else if (!o.at("--shape").empty()) names = {find_shape(o.at("--shape"), q8).name};
    else names = {"gpt2-124m", "gemma3-270m", "gemma3-1b"};
    const Earlier earlier(o.at("--compare"));
    Output out(o.at("-o"));
    std::optional<Progress> progress(std::in_place, o);
    (*progress)("measuring the machine");
    const int threads = numbers(o, "-t", 0)[0];
    const Machine machine(threads ? threads : llm::detail::physical_cores());
    progress.reset();
    std::vector<Table> tables = tables_of(machine);
    print_tables(out, tables);
    std::vector<Measurement> measured;
    for (const std::string& name : names) {
        const bool one_of_several = names.size() > 1;
        if (one_of_several && weight_bytes(*std::find_if(std::begin(kShapes), std::end(kShapes),
                                                         [&](const Shape& s) { return s.name == name; }),
                                           q8) *
                                      1.3 >
                                  available_memory()) {
            out.line("\n" + name + ": left out for want of memory");
            continue;
        }
        measured.push_back(Measuring(o, machine, name, is_shape).result);
        const std::vector<Table> more = tables_of(measured.back());
        print_tables(out, more);
        tables.insert(tables.end(), more.begin(), more.end());
    }
    if (!earlier.empty()) out.table(earlier.compare(tables));
    out.end();
    if (!o.at("--png").empty()) draw(machine, measured, o.at("--png"));
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const Options o = parse({argv + std::min(argc, 1), argv + argc});
        if (o.at("-h") == "yes") std::cout << kUsage;
        else if (o.at("--report") == "yes") report(o);
        else run_tests(o);
        return 0;
    } catch (const std::exception& e) {
        std::cerr << "bench: " << e.what() << "\n";
        return 1;
    }
}
