# Trefoil: what a developer types. `make help` lists it.
SHELL := /bin/bash
TARGET ?= $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BINARIES := $(TARGET)/x86_64-unknown-linux-gnu/release

.PHONY: help demo test check bench bench-scale cluster images build packages
.DEFAULT_GOAL := help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: packages build ## One mesh on this machine: sidecar, ambient and unmeshed workloads, a live policy, a live switch, gRPC behind a waypoint (root)
	@$(BINARIES)/trefoilctl demo

test: ## Everything: checks, unit tests, the embedded suites, the smoke test on a real Kubernetes (root)
	@e2e/scripts/test

check: ## Formatting, lints, unit tests, file lengths
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked
	e2e/scripts/lengths
	e2e/scripts/deny

bench: packages build ## What the mesh costs beside plain TCP, bare mTLS and ztunnel; the table goes to docs/performance.md (root)
	@e2e/bench/run $(BINARIES)

bench-scale: build ## The control plane before fleets of 200 and 1,000 nodes; the table goes to docs/scale.md
	@e2e/bench/scale $(BINARIES)

cluster: packages build ## A real three-node Kubernetes on this machine with the mesh in it by its Helm chart, and the smoke test (root); CLUSTER=down removes it. On a cluster of yours: KUBECONFIG=… LOAD='kind load image-archive' make cluster
	@e2e/cluster/scripts/build.sh
	@BINARIES=$(BINARIES) e2e/cluster/run $(or $(CLUSTER),$(if $(LOAD),given,up))

images: packages build ## OCI archives of the binaries, FROM scratch
	@BINARIES=$(BINARIES) e2e/cluster/run images

build:
	@cargo build --quiet --workspace --release --locked --bins

packages:
	@e2e/scripts/packages
