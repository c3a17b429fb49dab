// What is printed: tables are made once, and printed for a terminal, as Markdown, JSON or CSV, or compared with those of
// an earlier run (compare.h). And what goes on meanwhile, on a terminal.

#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../cli/flags.h"
#include "../cli/json.h"

namespace bench {

using cli::format;

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

inline std::string bar(const Row& row) {
    constexpr double kWidth = 28;
    const int length = row.bar > 0 ? std::max(1, int(std::lround(row.bar * kWidth))) : 0;
    std::string text;
    for (int i = 0; i < length; ++i) text += i < std::lround(row.bar * row.solid * kWidth) ? "\u2588" : "\u2591";
    return text;
}

// Lines of at most 96 characters.
inline std::string wrapped(const std::string& text) {
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
            if (json_) return add(name, cli::json_string(text));
            std::string clean;
            for (const char c : text) clean += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
            std::ostringstream quoted;
            quoted << std::quoted(clean, '"', '"');
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
        if (!std::cout) throw llm::Error("cannot write to standard output");  // and no picture is drawn
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

// What goes on, on a terminal; nothing where there is none.
class Progress {
  public:
    explicit Progress(bool quiet) : shown_(!quiet && isatty(STDERR_FILENO)) {}
    ~Progress() { (*this)(""); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    void operator()(const std::string& what) const {
        if (shown_) std::cerr << "\r\033[K" << what << std::flush;
    }
  private:
    bool shown_;
};

}  // namespace bench
