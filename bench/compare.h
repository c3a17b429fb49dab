// --compare: this run beside an earlier one, row by row, and what lies beyond the spread of both.

#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "../llm.h"
#include "output.h"

namespace bench {

// As llama-bench names its tests; and how many sequences did it together.
inline std::string test_name(double prompt, double generate, double depth, double parallel) {
    return (prompt > 0 ? "pp" : "tg") + format("%.0f", prompt + generate) +
           (depth > 0 ? format(" @ d%.0f", depth) : "") + (parallel > 1 ? format(" x %.0f", parallel) : "");
}

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
                test ? test_name(number("n_prompt"), number("n_gen"), number("n_depth"), number("n_parallel"))
                     : text("row");
            auto& values = rows_[key(text("model_filename"), test ? "test" : text("table"), name)];
            for (const auto& [field, value] : object.members())
                if (value.is<double>()) values[std::string(field)] = value.number();
            if (test) values["spread"] = number("stddev_ts") / number("avg_ts");
        }
    }
    bool empty() const { return rows_.empty(); }

    // All rows that both runs have: more than 1 is faster, or better.
    Table compare(const std::vector<Table>& tables) const {
        Table out{"", "compare", "", 0, false, {}};
        out.title = "Beside the earlier run: more than 1 is better; marked where it is beyond the spread of both";
        out.columns = {{"row", "what"},   {"column", "in"},      {"before", "before", 2},
                       {"now", "now", 2}, {"ratio", "ratio", 3}, {"verdict", ""}};
        for (const Table& t : tables)
            for (const Row& row : t.rows) {
                const auto found = rows_.find(key(t.model, t.name, t.text(row, 0)));
                if (!t.measure || found == rows_.end()) continue;
                const auto earlier = [&](const char* field) {
                    const auto value = found->second.find(field);
                    return value == found->second.end() ? NAN : value->second;
                };
                const Column& column = t.columns[std::size_t(t.measure)];
                const double before = earlier(column.key), now = std::get<double>(row.cells[std::size_t(t.measure)]);
                if (!(before > 0) || !(now > 0)) continue;
                const double ratio = t.less_is_better ? before / now : now / before;
                const bool differ = std::fabs(ratio - 1) > 2 * std::hypot(row.spread, earlier("spread"));
                out.rows.push_back({{t.model + (t.model.empty() ? "" : " ") + t.name + " " + t.text(row, 0),
                                     column.heading, before, now, ratio,
                                     !differ     ? ""
                                     : ratio > 1 ? "better"
                                                 : "WORSE"}});
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

}  // namespace bench
