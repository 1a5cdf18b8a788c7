# What can be done here: `just`. The steps themselves stand in .ci/run, so that CI and everybody
# else do the same.

_list:
    @just --list --unsorted

# What CI runs, without the tests against other people's software
check:
    .ci/run fmt clippy test doc deny

# All that CI runs
ci:
    CI=true .ci/run

# The tests; arguments go to cargo test
test *ARGS:
    cargo test --locked {{ARGS}}

# Formats the code
fmt:
    cargo fmt --all
    cargo fmt --manifest-path bench/Cargo.toml
    cargo fmt --manifest-path fuzz/Cargo.toml

# Lints
clippy:
    .ci/run clippy

# The simulator of the lifecycle, at full length
simulate:
    .ci/run simulate

# The defects that the simulator has to find: those of today; `tests/mutants/run` takes all
mutants:
    .ci/run mutants

# Licences, banned crates, sources, advisories
deny:
    .ci/run deny

# The documentation of the code
doc:
    .ci/run doc

# Other people's clients and a certified identity provider; arguments: which clients
interop *CLIENTS:
    tests/interop/run {{CLIENTS}}

# A real systemd in namespaces, with real users and units; arguments: which tests (needs root and
# mmdebstrap)
systemd *TESTS:
    tests/systemd/run {{TESTS}}

# Builds the Debian package
deb:
    packaging/deb

# What is shipped: the container's file system, the Kubernetes manifest, the Debian package
packaging:
    tests/packaging/run

# A real Keycloak: every way in, rotation, and its restart under callers
keycloak:
    tests/interop/keycloak/run

# A real Keycloak and workers that work: every way in, and a night of faults; arguments: which rows
e2e *ROWS:
    tests/e2e/run {{ROWS}}

# Measures tokend against bare servers, in ratios
bench *ARGS:
    bench/run {{ARGS}}

# Fuzzes what others can send; arguments: --seconds N (600), and which targets
fuzz *ARGS:
    fuzz/run {{ARGS}}
