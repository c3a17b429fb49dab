// build/test: the tests of llm.h and of the programs, in the order of llm.h's rooms. What they share, and what they need,
// is said in tests/support.h.

// clang-format off
#include "tests/doctest.cpp"

#include "tests/small_tools.cpp"
#include "tests/json.cpp"
#include "tests/numbers.cpp"
#include "tests/threads.cpp"
#include "tests/kernels.cpp"
#include "tests/arithmetic.cpp"
#include "tests/matrices.cpp"
#include "tests/model_files.cpp"
#include "tests/tokenizer.cpp"
#include "tests/model.cpp"
#include "tests/attention.cpp"
#include "tests/profiling.cpp"
#include "tests/likeliest.cpp"
#include "tests/forward.cpp"
#include "tests/reference.cpp"
#include "tests/saved_sessions.cpp"
#include "tests/sampling.cpp"
#include "tests/generate.cpp"
#include "tests/many.cpp"
#include "tests/chat.cpp"
#include "tests/variants.cpp"
#include "tests/promises.cpp"

#include "tests/hostile_files.cpp"
#include "tests/damaged_files.cpp"
#include "tests/host_program.cpp"
#include "tests/cli_llm.cpp"
#include "tests/cli_terminal.cpp"
#include "tests/cli_bench.cpp"
#include "tests/readme.cpp"
#include "tests/first_evening.cpp"
// clang-format on
