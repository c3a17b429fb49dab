// What the system says about the machine. Linux answers; elsewhere it is "unknown".

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "../cli/flags.h"

namespace bench {

using cli::format;

// Memory that can be had without swapping; infinite where the system does not say.
inline double available_memory() {
    double bytes = INFINITY;
    std::ifstream meminfo("/proc/meminfo"), group("/sys/fs/cgroup/memory.max"), used("/sys/fs/cgroup/memory.current");
    for (std::string name, rest; meminfo >> name; std::getline(meminfo, rest))
        if (double kb; name == "MemAvailable:" && meminfo >> kb) bytes = kb * 1024;
    if (double most, now; group >> most && used >> now) bytes = std::min(bytes, most - now);
    return bytes;
}

inline std::string first_line(const std::string& path) {
    std::string line;
    std::getline(std::ifstream(path) >> std::ws, line);
    return line;
}

inline std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.rfind("model name\t: ", 0) == 0) return line.substr(13);
    return "unknown";
}

inline std::string caches() {
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
inline std::string huge_pages() {
    double all = 0, huge = 0;
    std::ifstream rollup("/proc/self/smaps_rollup");
    for (std::string name, rest; rollup >> name; std::getline(rollup, rest)) {
        if (name == "Anonymous:") rollup >> all;
        if (name == "AnonHugePages:") rollup >> huge;
    }
    return all > 0 ? format("%.0f %%", 100 * huge / all) : "unknown";
}

}  // namespace bench
