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
    const bool q8 = o.load.dtype == llm::DType::q8_0, is_shape = o.model.empty();
    std::vector<std::string> names;
    if (!is_shape) names = {o.model};
    else if (!o.shape.empty()) names = {find_shape(o.shape, q8).name};
    else names = {"gpt2-124m", "gemma3-270m", "gemma3-1b"};
    const Earlier earlier(o.compare);
    Output out(o.output());
    std::optional<Progress> progress(std::in_place, o.quiet);
    (*progress)("measuring the machine");
    const Machine machine(o.load.threads ? o.load.threads : llm::detail::physical_cores());
    progress.reset();
    std::vector<Table> tables = tables_of(machine);
    print_tables(out, tables);
    std::vector<Measurement> measured;
    for (const std::string& name : names) {
        if (names.size() > 1 && weight_bytes(shape_of(name), q8) * 1.3 > available_memory()) {
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
    if (!o.png.empty()) draw(machine, measured, o.png);
}

}  // namespace bench
