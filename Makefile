# `make` alone lists the targets. docker/needs installs missing tools of a target (as root on Debian) or names them.

# The certificate authorities that this machine trusts. On a network that inspects TLS, cargo in the image's build stage
# must trust them too. They do not become part of the image.
CA_BUNDLE ?= /etc/ssl/certs/ca-certificates.crt
# The folder of examples/ that `make up` starts and `make down` stops.
EXAMPLE ?= compose
# With IMAGE=NAME, `make up` and the tests run that image in place of prosody-entrypoint:latest.
# COLLECTION and PROSODY_SOURCE are sources of the image's modules and of its Prosody: see docs/building.md.
# What builds the images of docker/Dockerfile.
DOCKER_BUILD ?= docker build
# The folders of tests/images/ that `make test-images` builds.
TEST_IMAGES ?= $(notdir $(wildcard tests/images/*))
# How long `make fuzz` runs each target, in seconds.
FUZZ_SECONDS ?= 60

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Labels that differ from commit to commit. The time is the commit's, so that the same source gives the same image. A
# release sets SOURCE, the address of the repository.
REVISION := $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)
CREATED := $(shell git log -1 --format=%cI 2>/dev/null)
LABELS := $(addprefix --label org.opencontainers.image., version=$(VERSION) \
	$(addprefix revision=,$(REVISION)) $(addprefix created=,$(CREATED)) $(addprefix source=,$(SOURCE)))

# Tests run with cargo-nextest if it is installed. .config/nextest.toml has the profile for the container tests.
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
RUN_TESTS := $(if $(NEXTEST),cargo nextest run --locked --no-fail-fast,cargo test --locked --no-fail-fast)
RUN_CONTAINER_TESTS := $(if $(NEXTEST),cargo nextest run --locked --test containers --run-ignored only --profile containers \
	--no-fail-fast,cargo test --locked --no-fail-fast --test containers -- --ignored)
JUNIT := target/nextest/containers/junit.xml

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

.PHONY: up
up: ## start a server with an account [DOMAIN=localhost] [PUBLISH=127.0.0.1] [EXAMPLE=compose] [IMAGE=NAME]
	@docker/needs docker compose
	@examples/server running $(EXAMPLE) || { [ $$? = 1 ] $(if $(IMAGE),,&& $(MAKE) --no-print-directory image-trixie); }
	@examples/server up $(EXAMPLE)

.PHONY: down
down: ## stop the server of `make up`; its data stays, unless VOLUMES=1 [EXAMPLE=compose]
	@docker/needs docker compose
	@examples/server down $(EXAMPLE) $(if $(VOLUMES),--volumes)

.PHONY: binary
binary: ## the static binary, at target/prosody-entrypoint
	@docker/needs cargo cc
	docker/build-binary

.PHONY: image
image: image-trixie image-bookworm image-minimal ## the images: prosody-entrypoint:latest (trixie), :bookworm and :minimal [COLLECTION=…] [PROSODY_SOURCE=…]

.PHONY: image-minimal
image-minimal: image-trixie ## prosody-entrypoint:minimal alone, from :latest, without a shell
	docker build -f docker/minimal/Dockerfile -t prosody-entrypoint:minimal $(LABELS) docker/minimal

.PHONY: image-trixie image-bookworm
image-trixie: TAG = latest
image-bookworm: TAG = bookworm
image-bookworm: base-trixie # its build stage
image-trixie image-bookworm: image-%: base-% host-ca
	arguments=$$(docker/build-args) && \
	$(DOCKER_BUILD) -f docker/Dockerfile -t prosody-entrypoint:$(TAG) --build-arg SUITE=$* $$arguments $(LABELS) .

.PHONY: image-arm64
image-arm64: base-trixie host-ca ## prosody-entrypoint:arm64, as :latest; on other machines, cross-compiled and emulated by QEMU
	docker/emulated sh -c 'docker/base-image trixie arm64 && docker/base-image scratch arm64 && \
		$(DOCKER_BUILD) -f docker/Dockerfile -t prosody-entrypoint:arm64 --build-arg TARGETARCH=arm64 \
			--build-arg DEBIAN=arm64v8/debian --build-arg EMPTY=arm64v8/scratch $(LABELS) .'

.PHONY: base-trixie base-bookworm
base-trixie base-bookworm: base-%:
	@docker/needs docker
	@docker/base-image $*

.PHONY: host-ca
host-ca:
	@mkdir -p target && rm -f target/host-ca.crt
	@if [ -r '$(CA_BUNDLE)' ]; then cp '$(CA_BUNDLE)' target/host-ca.crt; fi

.PHONY: test-images
test-images: base-trixie base-bookworm image-trixie image-minimal databases ## the other images that the tests use
	for name in $(TEST_IMAGES); do \
		tar -c -C tests/images/$$name . -C $(CURDIR)/target $(notdir $(wildcard target/host-ca.crt)) | \
			docker build -t prosody-entrypoint-test-$$name:latest - || exit; \
	done
	docker build -t prosody-entrypoint-test-postgresql:15 --build-arg SUITE=bookworm examples/postgresql/database

.PHONY: databases
databases: base-trixie
	docker build -t prosody-entrypoint-test-postgresql:17 examples/postgresql/database
	docker build -t prosody-entrypoint-test-mariadb:latest examples/mariadb/database

.PHONY: check
check: ## the quick tests, without containers
	@docker/needs cargo cargo-fmt cargo-clippy cc lua5.2 lua5.3 lua5.4 jq openssl tini
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(RUN_TESTS)

.PHONY: test
test: check image test-images ## every test
	@docker/needs compose
	@rm -f $(JUNIT)
	$(RUN_CONTAINER_TESTS); status=$$?; [ ! -e $(JUNIT) ] || tests/slowest $(JUNIT); exit $$status
	tests/minimal $(if $(TEST_ALL),all,sample)

.PHONY: test-all
test-all: export TEST_ALL = 1
test-all: binary test ## every test, with every combination of users, capabilities and databases

.PHONY: docs
docs: ## update the generated docs, the man page and the shells' completions
	cargo run --locked --quiet -- settings --format markdown >docs/settings.md.new
	mv docs/settings.md.new docs/settings.md
	UPDATE_DOCS=1 cargo test --locked --quiet --test command_line
	UPDATE_DOCS=1 cargo test --locked --quiet --test containers the_documented_table

.PHONY: release-check
release-check: ## all of a release that needs no publication: both architectures, the image twice, SBOM, docs, workflows
	@docker/needs cargo cc docker python3
	tests/release

.PHONY: fuzz
fuzz: ## run each fuzz target [FUZZ_SECONDS=60]
	@docker/needs cargo cc nightly cargo-fuzz
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	for target in $$(cargo +nightly fuzz list); do \
		mkdir "$$scratch/$$target" && cargo +nightly fuzz run $$target "$$scratch/$$target" fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 || exit; \
	done

.PHONY: bench
bench: image databases ## benchmarks, compared with tini, dumb-init and catatonit [BEFORE=BINARY]
	@docker/needs hyperfine python3 tini dumb-init catatonit cc
	benches/run

.PHONY: clean
clean: ## remove build results; images stay
	cargo clean
