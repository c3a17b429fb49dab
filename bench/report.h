// build/bench --report: the status page. What this machine can do, what a model makes of it, and what is left.

#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "compare.h"
#include "machine.h"
#include "measure.h"
#include "models.h"
#include "options.h"
#include "output.h"
#include "picture.h"
#include "verdict.h"

namespace bench {

inline void print_tables(Output& out, const std::vector<Table>& tables) {
    for (const Table& t : tables) {
        if (t.name != "limits" || !out.prose()) out.table(t);
        else
            for (const Row& row : t.rows) out.line("\n" + wrapped(std::get<std::string>(row.cells.back())));
    }
}

inline void report(const Options& o) {
    const bool is_shape = o.model.empty();
    std::vector<std::pair<std::string, llm::DType>> models;
    for (const std::string& other : o.others) models.emplace_back(other, o.load.dtype);
    if (!is_shape) models.insert(models.begin(), {o.model, o.load.dtype});
    else if (!o.shape.empty()) models = {{find_shape(o.shape, o.load.dtype).name, o.load.dtype}};
    else
        for (const char* name : {"gpt2-124m", "gemma3-270m", "gemma3-1b"}) models.emplace_back(name, o.load.dtype);
    if (is_shape && models.size() > 1 && o.load.dtype == llm::DType::native)
        for (const char* name : {"gemma3-270m", "gemma3-1b"}) models.emplace_back(name, llm::DType::q4_0);
    const Earlier earlier(o.compare);
    Output out(o.output());
    std::optional<Progress> progress(std::in_place, o.quiet);
    (*progress)("measuring the machine");
    const Machine machine(o.load.threads ? o.load.threads : llm::detail::physical_cores());
    progress.reset();
    std::vector<Table> tables = tables_of(machine);
    print_tables(out, tables);
    std::vector<Measurement> measured;
    for (const auto& [name, dtype] : models) {
        if (is_shape && models.size() > 1 && weight_bytes(shape_of(name), dtype) * 1.3 > available_memory()) {
            out.line("\n" + name + ": left out for want of memory");
            continue;
        }
        Options one = o;
        one.load.dtype = dtype;
        measured.push_back(Measuring(one, machine, name, is_shape).result);
        if (dtype != o.load.dtype) measured.back().name += " q4_0";
        const std::vector<Table> more = tables_of(measured.back());
        print_tables(out, more);
        tables.insert(tables.end(), more.begin(), more.end());
    }
    if (!earlier.empty()) out.table(earlier.compare(tables));
    out.end();
    if (!o.png.empty()) draw(machine, measured, o.png);
}

}  // namespace bench
