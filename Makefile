# relayd - `make`, `make demo`, `make check`; `make help` lists the rest.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
PKG_CONFIG ?= pkg-config
CFLAGS ?= -O2 -g
LDFLAGS ?=
VERSION := 0.1.0
# What was built, for relayd_build_info: the commit, where there is a repository.
REVISION := $(or $(REVISION),$(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown))

# One build folder per flavour, so that flavours never mix: release, clang, asan, fuzz.
FLAVOUR ?= release
B := build/$(FLAVOUR)

LIBCRYPTO ?= 1
LIBS := gnutls libcurl libcares libsodium yaml-0.1 libmicrohttpd jansson libxxhash libseccomp
LIBS += $(if $(filter 1,$(LIBCRYPTO)),libcrypto)

RELAYD_CFLAGS := -std=gnu11 -I. -Ibuild/include -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wvla -Wformat=2 -fno-strict-aliasing -fstack-protector-strong -fPIE -D_GNU_SOURCE \
	-DRELAYD_VERSION='"$(VERSION)"' -DLIBCRYPTO=$(LIBCRYPTO)
RELAYD_LDFLAGS := -pie -Wl,-z,relro,-z,now

ifeq ($(FLAVOUR),asan)
  RELAYD_CFLAGS += -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
  RELAYD_LDFLAGS += -fsanitize=address,undefined
else ifeq ($(FLAVOUR),fuzz)
  CC := clang
  RELAYD_CFLAGS += -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
  RELAYD_LDFLAGS += -fsanitize=fuzzer,address,undefined
else
  RELAYD_CFLAGS += -D_FORTIFY_SOURCE=2 -fstack-clash-protection
endif
ifeq ($(FLAVOUR),clang)
  CC := clang
endif

LIB_CFLAGS = $(shell $(PKG_CONFIG) --cflags $(LIBS) 2>/dev/null)
LIB_LDLIBS = $(shell $(PKG_CONFIG) --libs $(LIBS) 2>/dev/null) -lm

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2);)

# The layers from the floor up; each links only against those it may include (test/lint/includes checks the sources).
SIBLINGS := smtp dkim tls dns config queue
MODULES := base $(SIBLINGS) relayd relayctl
obj_of = $(patsubst %.c,$(B)/%.o,$(filter-out $(1)/main.c,$(wildcard $(1)/*.c)))
$(foreach m,$(MODULES),$(eval $(m)_OBJ := $(call obj_of,$(m))))
archive_of = $(patsubst %,$(B)/%.a,$(1))

RELAYD_ARCHIVES := $(call archive_of,relayd $(SIBLINGS) base)
RELAYCTL_ARCHIVES := $(call archive_of,relayctl $(SIBLINGS) base)

PROGRAMS := $(B)/relayd/relayd $(B)/relayctl/relayctl
all: $(PROGRAMS)

$(B)/relayd/relayd: $(B)/relayd/main.o $(RELAYD_ARCHIVES)
	$(call say,LD,$@)$(CC) $(RELAYD_LDFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LDLIBS)
$(B)/relayctl/relayctl: $(B)/relayctl/main.o $(RELAYCTL_ARCHIVES)
	$(call say,LD,$@)$(CC) $(RELAYD_LDFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LDLIBS)

# A stamp that is written when the revision is another one.
build/revision: ; @true
$(shell mkdir -p build; [ "$$(cat build/revision 2>/dev/null)" = '$(REVISION)' ] || echo '$(REVISION)' >build/revision)
$(B)/relayd/revision.o: build/revision
$(B)/relayd/revision.o: RELAYD_CFLAGS += -DRELAYD_REVISION='"$(REVISION)"'

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(RELAYD_CFLAGS) $(LIB_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

define archive_rule
$(B)/$(1).a: $$($(1)_OBJ)
	@mkdir -p $$(@D)
	$$(call say,AR,$$@)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call archive_rule,$(m))))

# Unit tests: test/unit/MODULE/test_NAME.c links MODULE and base; relayd and relayctl tests link everything below them.
# Helpers shared by the tests of a module: test/unit/MODULE/support_*.c
UNIT_SRC := $(wildcard test/unit/*/test_*.c)
UNIT := $(UNIT_SRC:%.c=$(B)/%)
unit_module = $(word 3,$(subst /, ,$(1)))
unit_support = $(patsubst %.c,$(B)/%.o,$(wildcard test/unit/$(call unit_module,$(1))/support_*.c))
unit_archives = $(call archive_of,$(if $(filter relayd relayctl,$(2)),$(2) $(SIBLINGS),$(filter-out base,$(2))) base)
define unit_rule
$(B)/$(1:.c=): $(B)/$(1:.c=.o) $(call unit_support,$(1)) $(call unit_archives,,$(call unit_module,$(1)))
	$$(call say,LD,$$@)$$(CC) $$(RELAYD_LDFLAGS) $$(LDFLAGS) -o $$@ $$^ $$(LIB_LDLIBS) -lcmocka
endef
$(foreach t,$(UNIT_SRC),$(eval $(call unit_rule,$(t))))

# Fuzz targets: test/fuzz/fuzz_NAME.c with its corpus in test/fuzz/NAME.in/. With FLAVOUR=fuzz they fuzz; otherwise a plain
# main (test/fuzz/replay.c) runs them over the corpus.
FUZZ_SRC := $(wildcard test/fuzz/fuzz_*.c)
FUZZ := $(FUZZ_SRC:%.c=$(B)/%)
FUZZ_MAIN := $(if $(filter fuzz,$(FLAVOUR)),,$(B)/test/fuzz/replay.o)
$(FUZZ): $(B)/test/fuzz/fuzz_%: $(B)/test/fuzz/fuzz_%.o $(FUZZ_MAIN) $(call archive_of,relayd $(SIBLINGS) base)
	$(call say,LD,$@)$(CC) $(RELAYD_LDFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LDLIBS)

# Tools of the benchmarks: test/bench/NAME.c, one program each, of base and tls alone.
BENCH_SRC := $(wildcard test/bench/*.c)
BENCH := $(BENCH_SRC:%.c=$(B)/%)
$(BENCH): $(B)/test/bench/%: $(B)/test/bench/%.o $(call archive_of,queue dkim smtp tls base)
	$(call say,LD,$@)$(CC) $(RELAYD_LDFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LDLIBS)

# Simulation: test/sim/NAME.c, the whole relay in virtual time.
SIM_SRC := $(wildcard test/sim/sim_*.c)
SIM := $(SIM_SRC:%.c=$(B)/%)
SIM_OBJ := $(patsubst %.c,$(B)/%.o,$(filter-out $(SIM_SRC),$(wildcard test/sim/*.c)))
# Their sockets and epoll are test/sim/socket.c.
SIM_WRAPPED := epoll_create1 epoll_ctl epoll_wait close recv send shutdown getsockopt setsockopt
$(SIM): $(B)/test/sim/%: $(B)/test/sim/%.o $(SIM_OBJ) $(RELAYD_ARCHIVES)
	$(call say,LD,$@)$(CC) $(RELAYD_LDFLAGS) $(LDFLAGS) $(SIM_WRAPPED:%=-Wl,--wrap=%) -o $@ $^ $(LIB_LDLIBS)

unit: $(UNIT)
fuzzers: $(FUZZ)
benchers: $(BENCH)
sims: $(SIM)

.SECONDARY:
-include $(shell [ -d $(B) ] && find $(B) -name '*.d')

# For the targets that build everything and then run it.
JOBS ?= $(shell nproc)

deps:
	@test/deps build demo check
demo:
	@test/deps build demo
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@test/demo $(B)
check:
	@test/deps build check
	@$(MAKE) --no-print-directory -j$(JOBS) all unit fuzzers sims benchers
	@B=$(B) LONG=$(LONG) test/check
# The same tests, built with AddressSanitizer and UndefinedBehaviorSanitizer.
asan:
	@test/deps build check
	@$(MAKE) --no-print-directory -j$(JOBS) FLAVOUR=asan all unit fuzzers sims
	@B=build/asan LONG=$(LONG) test/check
# FUZZ_SECONDS for each target.
FUZZ_SECONDS ?= 600
fuzz:
	@$(MAKE) --no-print-directory FLAVOUR=fuzz fuzzers
	@FUZZ_SECONDS=$(FUZZ_SECONDS) test/fuzz/run build/fuzz/test/fuzz
bench:
	@test/deps build bench
	@$(MAKE) --no-print-directory -j$(JOBS) all benchers
	@test/bench/run $(BENCH_ARGS)
# The container image as far as it can be proven without an engine; as root, some minutes.
container:
	@test/deps container && test/container
tidy:
	clang-tidy $(wildcard $(patsubst %,%/*.c,$(MODULES))) -- $(RELAYD_CFLAGS) $(LIB_CFLAGS)
format:
	clang-format -i $(wildcard $(patsubst %,%/*.[ch],$(MODULES))) $(wildcard test/*/*.[ch] test/unit/*/*.[ch])
compile_commands.json: Makefile
	@{ echo '['; for f in $(wildcard $(patsubst %,%/*.c,$(MODULES))); do \
		printf '%s{"directory":"%s","file":"%s","command":"cc %s -c %s"}\n' "$$comma" '$(CURDIR)' $$f \
		"$$(echo '$(RELAYD_CFLAGS) $(LIB_CFLAGS)' | sed 's/"/\\"/g')" $$f; comma=,; done; echo ']'; } > $@

install: all
	install -D -m 755 $(B)/relayd/relayd $(DESTDIR)$(PREFIX)/sbin/relayd
	install -D -m 755 $(B)/relayctl/relayctl $(DESTDIR)$(PREFIX)/bin/relayctl
	install -d $(DESTDIR)$(PREFIX)/sbin
	for name in sbin/sendmail bin/mailq bin/newaliases; do \
		ln -sf ../bin/relayctl $(DESTDIR)$(PREFIX)/$$name; done
	install -D -m 644 relayd/relayd.8 $(DESTDIR)$(PREFIX)/share/man/man8/relayd.8
	install -D -m 644 relayctl/relayctl.8 $(DESTDIR)$(PREFIX)/share/man/man8/relayctl.8
	install -D -m 644 config/relayd.yaml.5 $(DESTDIR)$(PREFIX)/share/man/man5/relayd.yaml.5
	install -D -m 644 contrib/completions/relayctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/relayctl
	install -D -m 644 contrib/completions/_relayctl $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_relayctl
	test -e $(DESTDIR)$(SYSCONFDIR)/relayd/relayd.yaml || \
		install -D -m 644 etc/relayd.yaml $(DESTDIR)$(SYSCONFDIR)/relayd/relayd.yaml
clean:
	rm -rf build compile_commands.json
help:
	@echo 'make            build relayd and relayctl into build/release'
	@echo 'make demo       build, start, send one real message through, show what happened'
	@echo 'make check      all tests (LONG=1: the long form)'
	@echo 'make asan       all tests under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make fuzz       fuzz each target for FUZZ_SECONDS (600)'
	@echo 'make bench      measure against Postfix on this machine'
	@echo 'make container  build and run the container image without an engine (root, some minutes)'
	@echo 'make deps       install what building, demo and tests need (Debian packages, npm packages)'
	@echo 'make install    PREFIX=$(PREFIX) DESTDIR='
	@echo 'Variables: CC, CFLAGS, LDFLAGS, FLAVOUR=release|clang|asan|fuzz, LIBCRYPTO=0, V=1'

.PHONY: all deps demo check asan fuzz bench container tidy format install clean help unit fuzzers benchers sims
.DEFAULT_GOAL := all
