// build/bench on the command line.

#include "programs.h"
#include "support.h"

namespace tests {
namespace {

// A member of a row, or else NaN or "".
double real(const Json& row, const char* key) { return row[key].is<double>() ? row[key].number() : NAN; }
std::string text_of(const Json& row, const char* key) { return std::string(row[key].text()); }

TEST_CASE("bench prints what llama-bench prints, as JSON, CSV and Markdown") {
    const std::vector<std::string> base = {
        "-m", tiny("gpt2-tiny"), "-p", "8,16", "-n", "4", "-d", "0,5", "-t", "2", "-r", "3"};
    const auto print = [&](const std::string& format) {
        std::vector<std::string> args = base;
        args.insert(args.end(), {"-o", format});
        const Outcome o = run("bench", args);
        CHECK(o.status == 0);
        CHECK(o.err == "");
        return o.out;
    };
    const JsonDocument json(print("json"), "bench");
    const auto& rows = json.root().array();
    REQUIRE(rows.size() == 6);
    for (const Json& row : rows) {
        const auto number = [&](const char* name) {
            CAPTURE(std::string(name));
            REQUIRE(row.find(name));
            return row.find(name)->number();
        };
        CHECK(text(row, "model_filename") == tiny("gpt2-tiny"));
        CHECK(number("n_parallel") == 1);
        for (const char* name : {"cpu_info", "model_type", "test_time"}) CHECK(text(row, name) != "");
        CHECK(number("n_threads") == 2);
        CHECK(number("model_n_params") == 924416);
        CHECK(number("model_size") > 0);
        const double tokens = number("n_prompt") + number("n_gen"), ns = number("avg_ns");
        CHECK((tokens == 8 || tokens == 16 || tokens == 4));
        CHECK((number("n_depth") == 0 || number("n_depth") == 5));
        CHECK(number("avg_ts") >= tokens / ns * 0.999e9);  // the mean of ratios is not below the ratio of means
        CHECK(number("stddev_ts") >= 0);
        CHECK(number("stddev_ns") >= 0);
        CHECK(row.find("samples_ns")->array().size() == 3);
        CHECK(row.find("samples_ts")->array().size() == 3);
    }
    const std::string csv = print("csv"), md = print("md");
    CHECK(std::count(csv.begin(), csv.end(), '\n') == 7);
    CHECK(csv.find("n_prompt,n_gen,n_depth") != std::string::npos);
    CHECK(std::count(md.begin(), md.end(), '\n') == 8);
    CHECK(md.find("| pp8 @ d5 |") != std::string::npos);
    CHECK(md.find("| tg4 |") != std::string::npos);
}

TEST_CASE("bench --parallel: tokens/s of all sequences together") {
    const Outcome o = run("bench", {"-m", tiny("gemma3-tiny"), "-p", "20", "-n", "6", "-d", "4", "-r", "2",
                                    "--parallel", "1,5", "-o", "json"});
    REQUIRE(o.status == 0);
    const JsonDocument document(o.out, "bench");
    REQUIRE(document.root().array().size() == 4);
    for (const Json& row : document.root().array()) {
        const double parallel = real(row, "n_parallel"),
                     tokens = (real(row, "n_prompt") + real(row, "n_gen")) * parallel;
        CHECK((parallel == 1 || parallel == 5));
        CHECK(real(row, "avg_ts") >= tokens / real(row, "avg_ns") * 0.999e9);
    }
}

TEST_CASE("bench refuses what it cannot measure") {
    const std::vector<std::vector<std::string>> cases = {{"--bogus"},
                                                         {"-p"},
                                                         {"-p", "x"},
                                                         {"-p", "1,"},
                                                         {"-p", "-1"},
                                                         {"-r", "0"},
                                                         {"--parallel", "0"},
                                                         {"--parallel", "257"},
                                                         {"-o", "xml"},
                                                         {"--dtype", "f8"},
                                                         {"-m", "no/such/model"},
                                                         {"-p", "600"},
                                                         {"-d", "1", "--report"},
                                                         {"-p", "1", "-f", "x", "--quality"}};
    for (const auto& args : cases) {
        const Outcome o = run("bench", args);
        CAPTURE(o.err);
        CHECK(o.status == 1);
        CHECK(o.out == "");
        CHECK(o.err.rfind("bench: ", 0) == 0);
        CHECK(o.err.find(args.back()) != std::string::npos);
        CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
    }
    CHECK(run("bench", {"--help"}).out.rfind("usage: bench", 0) == 0);
    CHECK(run("bench", {"-m", tiny("gpt2-tiny"), "-d", "200", "-r", "1"}).out.find("pp56 @ d200") != std::string::npos);
}

TEST_CASE("bench: published shapes have their published number of parameters") {
    for (const auto& [shape, parameters] :
         {std::pair<const char*, double>{"gpt2-124m", 124439808}, {"gemma3-270m", 268098176}}) {
        const Outcome o = run("bench", {"--shape", shape, "-p", "0", "-n", "1", "-r", "1", "-o", "json"});
        REQUIRE(o.status == 0);
        const JsonDocument document(o.out, "bench");
        CHECK(real(document.root().array()[0], "model_n_params") == parameters);
        CHECK(real(document.root().array()[0], "avg_ts") > 0);
    }
    CHECK(run("bench", {"--shape", "gpt3"}).err.find("none of gpt2-124m, ") != std::string::npos);
}

TEST_CASE("bench --report: facts, sums, a picture, and a comparison with itself" *
          doctest::skip(LLM_TSAN)) {  // under which it measures the machine for minutes
    const TemporaryDirectory directory;
    const std::string base = (directory.path / "report").string();
    const auto report = [](std::vector<std::string> args) {
        args.insert(args.begin(), {"--report", "-q", "-m", "models/gemma3-tiny", "-p", "1,40", "-r", "2"});
        return run("bench", args);
    };
    const Outcome json = report({"-o", "json", "--png", base + ".png"});
    REQUIRE(json.status == 0);
    const JsonDocument document(json.out, "bench");
    std::map<std::string, double> milliseconds, steps;
    std::map<std::string, int> rows;
    for (const auto& row : document.root().array()) {
        const std::string table = text_of(row, "table");
        ++rows[table];
        if (table == "bandwidth") CHECK(real(row, "read_gb_s") > 0);
        if (table == "decode") CHECK(real(row, "p50_ms") <= real(row, "p95_ms"));
        if (table == "parallel") CHECK(real(row, "limit_tokens_s") > 0);
        if (table == "limits")
            CHECK((text_of(row, "bound_by") == "memory" || text_of(row, "bound_by") == "arithmetic"));
        if (table != "decode_step" && table != "prompt_step") continue;
        if (text_of(row, "row") == "step") steps[table] = real(row, "ms");
        else if (text_of(row, "row") != "other") milliseconds[table] += real(row, "ms");
    }
    for (const char* table :
         {"machine", "bandwidth", "model", "first_token", "decode", "parallel", "decode_step", "prompt_step", "limits"})
        CHECK(rows[table] > 0);
    CHECK(rows["first_token"] == 2);
    CHECK(rows["parallel"] == 6);
    for (const char* table : {"decode_step", "prompt_step"}) {
        CHECK(milliseconds[table] >= 0.97 * steps[table]);
        CHECK(milliseconds[table] <= 1.0001 * steps[table]);
    }

    const std::string png = read_file(base + ".png");
    REQUIRE(png.size() > 10000);
    CHECK(png.substr(0, 8) == "\x89PNG\r\n\x1a\n");
    CHECK(png.substr(16, 8) == std::string("\0\0\x06\x40\0\0\x03\xe8", 8));  // 1600 x 1000

    write_file(base + ".json", json.out);
    const Outcome again = report({"--compare", base + ".json"});
    CHECK(again.status == 0);
    CHECK(again.out.find("models/gemma3-tiny decode_step lm_head") != std::string::npos);
    CHECK(report({"--compare", "models/gemma3-tiny/config.json"}).err.find("an array") != std::string::npos);
}

TEST_CASE("bench --journey draws a picture, a row for each operation; several models are for reports") {
    const TemporaryDirectory directory;
    const std::string png = (directory.path / "journey.png").string();
    std::string heights[2];
    for (const bool gemma : {false, true}) {
        REQUIRE(run("bench", {"--journey", png, "-m", gemma ? "models/gemma3-tiny" : "models/gpt2-tiny"}).status == 0);
        const std::string bytes = read_file(png);
        REQUIRE(bytes.size() > 5000);
        CHECK(bytes.substr(0, 8) == "\x89PNG\r\n\x1a\n");
        heights[gemma] = bytes.substr(20, 4);
    }
    CHECK(heights[0] < heights[1]);  // Gemma has more norms, and RoPE
    const std::vector<std::string> both = {"-m", "models/gemma3-tiny", "-m", "models/gpt2-tiny"};
    CHECK(run("bench", both).err.find("add --report") != std::string::npos);
    CHECK(run("bench", {"--journey", png, "--report"}).err.find("a picture of its own") != std::string::npos);
}

TEST_CASE("bench --compare: marks what lies beyond the spread, and reads llama-bench's fields") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "before.json").string();
    write_file(file, R"([{"model_filename": "elsewhere/gpt2-tiny", "n_prompt": 0, "n_gen": 4, "n_depth": 0,
                               "avg_ts": 1.0, "stddev_ts": 0.0}])");
    const Outcome o =
        run("bench", {"-m", "models/gpt2-tiny", "-p", "0", "-n", "4", "-r", "2", "-o", "json", "--compare", file});
    REQUIRE(o.status == 0);
    const JsonDocument document(o.out, "bench");
    REQUIRE(document.root().array().size() == 2);
    const auto& row = document.root().array()[1];
    CHECK(text_of(row, "table") == "compare");
    CHECK(real(row, "before") == 1.0);
    CHECK(real(row, "ratio") == doctest::Approx(real(document.root().array()[0], "avg_ts")));
}

}  // namespace
}  // namespace tests
