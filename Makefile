# SPDX-License-Identifier: MIT
#
# A thin front for people; the build is Meson's.  `make help` lists the targets.

BUILD ?= build
BUILD_BENCH ?= build-bench
BUILD_SIM ?= build-sim
PREFIX ?= /usr/local
SECONDS_EACH ?= 60

MESON ?= meson
# What is installed is built as what is measured.
RELEASE = --buildtype=release -Db_lto=true -Dtests=disabled

.DEFAULT_GOAL := all
.PHONY: help all demo demo-afs test test-quick test-long bench bench-local bench-rx sim fuzz lint format coverage \
	hooks install clean

help:			## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

$(BUILD)/build.ninja:
	@tools/install-deps --build
	@tools/quietly configure $(MESON) setup $(BUILD) $(RELEASE) --prefix=$(PREFIX)

# A PREFIX that somebody gives is meant for a build that is there already, too.
all: $(BUILD)/build.ninja	## build the release in $(BUILD)
	@$(if $(filter-out file,$(origin PREFIX)),$(MESON) configure $(BUILD) -Dprefix=$(PREFIX))
	@tools/quietly build $(MESON) compile -C $(BUILD)

demo-afs:		## build, then call OpenAFS and be called by it
	@tools/install-deps --afs
	@$(MAKE) --no-print-directory all
	@APH_BUILD=$(BUILD) tools/demo-afs

demo:			## build, then show what it does on this machine
	@tools/install-deps --demo
	@$(MAKE) --no-print-directory all
	@APH_BUILD=$(BUILD) tools/demo

test:			## everything that CI runs
	@tools/install-deps
	@tools/run-tests

test-quick:		## the inner loop: unit tests, fuzz corpus, lint
	@tools/install-deps
	@tools/run-tests --quick

test-long:		## the same tests with many more random cases, and hours of fuzzing
	@tools/install-deps
	@tools/run-tests --long

$(BUILD_BENCH)/build.ninja:
	@tools/quietly configure $(MESON) setup $(BUILD_BENCH) $(RELEASE) -Dbench=true >&2

bench:			## measure this project beside floors and peers
	@tools/install-deps --bench
	@$(MAKE) --no-print-directory $(BUILD_BENCH)/build.ninja
	@tools/quietly build $(MESON) compile -C $(BUILD_BENCH)
	@APH_BUILD=$(BUILD_BENCH) bench/run $(if $(JSON),--json)
	@APH_BUILD=$(BUILD_BENCH) bench/run-rx $(if $(JSON),--json)

bench-local:		## only calls inside one host; JSON=1 for one JSON object a line
	@tools/install-deps --bench >&2
	@$(MAKE) --no-print-directory $(BUILD_BENCH)/build.ninja >&2
	@tools/quietly build $(MESON) compile -C $(BUILD_BENCH) >&2
	@APH_BUILD=$(BUILD_BENCH) bench/run --only local $(if $(JSON),--json)

bench-rx:		## only calls between machines, on loopback; JSON=1 for one JSON object a line
	@tools/install-deps --bench >&2
	@$(MAKE) --no-print-directory $(BUILD_BENCH)/build.ninja >&2
	@tools/quietly build $(MESON) compile -C $(BUILD_BENCH) >&2
	@APH_BUILD=$(BUILD_BENCH) bench/run-rx $(if $(JSON),--json)

sim:			## simulate for SECONDS_EACH seconds a scenario (SCENARIO=name for one)
	@tools/install-deps
	@test -e $(BUILD_SIM)/build.ninja || \
		tools/quietly configure $(MESON) setup $(BUILD_SIM) --buildtype=release -Dtests=enabled
	@tools/quietly build $(MESON) compile -C $(BUILD_SIM) sim
	@$(BUILD_SIM)/tests/sim/sim --fresh 1 --seconds $(SECONDS_EACH) $(if $(SCENARIO),--scenario $(SCENARIO))

fuzz:			## fuzz every target for SECONDS_EACH seconds (TARGET=name for one)
	@tools/install-deps
	@tools/fuzz --seconds $(SECONDS_EACH) $(TARGET)

lint:			## style, layers, symbols, manuals and static analysis
	@tools/install-deps
	@tools/run-tests --lint

format:			## format every C file in place
	@tools/check-style --fix

coverage:		## which lines the tests reach
	@tools/install-deps --coverage
	@tools/coverage

hooks:			## check the format of changed lines at each commit (opt-in)
	@git config core.hooksPath tools/hooks

# Meson's list of what it installed may be root's, from the last time.
install: all		## install under PREFIX (DESTDIR is honoured)
	@rm -f $(BUILD)/meson-logs/install-log.txt
	@$(MESON) install --no-rebuild -C $(BUILD)

clean:			## remove what the other targets built
	rm -rf $(BUILD) $(BUILD_BENCH) $(BUILD_SIM) build-test build-coverage
