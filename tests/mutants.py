#!/usr/bin/env python3
"""make mutants: puts small faults into llm.h, one at a time, and lists those that no test of their room notices.

mutants.py NUMBER SEED DIRECTORY. Faults are drawn from all rooms but the vector kernels. One that does not compile does not
count; tests that fail, crash or take for ever have caught theirs."""
import concurrent.futures
import os
import random
import re
import shutil
import subprocess
import sys

TESTS = {
    "ERRORS AND SMALL TOOLS": "small_tools hostile_files sampling",
    "JSON": "json",
    "NUMBERS": "numbers matrices",
    "MEMORY AND THREADS": "threads small_tools",
    "MATRICES": "matrices kernels profiling",
    "MODEL FILES": "model_files hostile_files model",
    "TOKENIZER": "tokenizer variants",
    "MODEL": "model variants hostile_files",
    "ATTENTION": "attention forward",
    "PROFILING": "profiling",
    "LIKELIEST TOKENS": "likeliest",
    "FORWARD": "forward reference many",
    "SAVED SESSIONS": "saved_sessions",
    "SAMPLING": "sampling generate",
    "GENERATION": "generate many promises",
    "CHAT": "chat",
}
FAULTS = [  # what becomes what
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "), (r" != ", " == "),
    (r" && ", " || "), (r" \|\| ", " && "), (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" / ", " * "),
    (r" % ", " / "), (r" \+= ", " -= "), (r"(?<=[(,= ])!(?=[a-z(])", ""), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
    (r"std::min\b", "std::max"), (r"std::max\b", "std::min"), (r"(?<![\w.])(\d+)(?![\w.'\"])", lambda m: str(int(m[1]) + 1)),
    (r"^( +)(?!return|break|continue|else|case|default|using|static|const|constexpr|throw|fail|for|if|while)([\w.>:-]+(\(.*\)| = .*);)$",
     r"\1if (false) \2"),
    (r"\bcontinue;", ";"), (r"\bbreak;", ";"),
]


def candidates(lines):
    """Each place where a fault can be: room, line number, the line with the fault."""
    room, raw, found = "", False, []
    for number, line in enumerate(lines):
        title = re.match(r"// ==== (.*?) =+$", line)
        room = title[1] if title else room
        code = line.split("  // ")[0]
        if room not in TESTS or not code.strip() or code.strip().startswith(("//", "#", "static_assert", "constexpr", "inline constexpr", '"')):
            continue
        quotes = [(m.start(), m.end()) for m in re.finditer(r'"([^"\\]|\\.)*"', code)]
        for pattern, into in FAULTS:
            for m in re.finditer(pattern, code):
                if not any(a <= m.start() < b for a, b in quotes):
                    found.append((room, number, code[: m.start()] + m.expand(into) + code[m.end():]
                                  if isinstance(into, str) else code[: m.start()] + into(m) + code[m.end():]))
    return found


def outcome(lines, mutant, directory):
    room, number, line = mutant
    os.makedirs(directory, exist_ok=True)
    for name in ("tests", "fuzz", "models", "examples", "docs", "bindings", "README.md", "Makefile"):
        if not os.path.lexists(f"{directory}/{name}"):
            os.symlink(os.path.abspath(name), f"{directory}/{name}")
    files = TESTS[room].split()
    with open(f"{directory}/llm.h", "w") as out:
        out.write("\n".join(lines[:number] + [line] + lines[number + 1:]))
    with open(f"{directory}/mutant.cpp", "w") as out:
        out.write('#include "llm.h"\n')  # before the tests, which would include the one beside them
        out.writelines(f'#include "tests/{file}.cpp"\n' for file in ["doctest"] + files)
    compiler = [os.environ.get("CXX", "g++"), "-std=c++17", "-Og", "-w", "-I" + directory, "-pthread", "-DLLM_IMPLEMENTATION"]
    build = subprocess.run(compiler + [f"{directory}/mutant.cpp", "-o", f"{directory}/mutant"], capture_output=True)
    if build.returncode:
        return "does not compile"
    try:
        environment = dict(os.environ, LLM_REAL="none", LLM_ROUNDS="100")
        run = subprocess.run([f"{directory}/mutant", "--abort-after=1"], capture_output=True, env=environment, timeout=150)
        return "caught" if run.returncode else "survives"
    except subprocess.TimeoutExpired:
        return "caught"


def main():
    number, seed, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    lines = open("llm.h").read().split("\n")
    mutants = candidates(lines)
    random.Random(seed).shuffle(mutants)
    shutil.rmtree(directory, ignore_errors=True)
    counts, slots = {"caught": 0, "survives": 0, "does not compile": 0}, os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(slots) as pool:
        while counts["caught"] + counts["survives"] < number and mutants:
            some = [mutants.pop() for _ in range(min(slots, number - counts["caught"] - counts["survives"], len(mutants)))]
            for mutant, result in zip(some, pool.map(lambda k: outcome(lines, some[k], f"{directory}/{k}"), range(len(some)))):
                counts[result] += 1
                if result == "survives":
                    print(f"survives: {mutant[0]}, line {mutant[1] + 1}: {lines[mutant[1]].strip()}  ->  {mutant[2].strip()}", flush=True)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))


main()
