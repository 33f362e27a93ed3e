# What there is.
default:
    @just --list

# Everything that must hold before a commit; edits nothing.
verify:
    .ci/run

# The README's test command.
test:
    cargo test --workspace --all-features

# A server on 127.0.0.1:8640, data in ./systole-data.
run *ARGS:
    cargo run --release -- {{ARGS}}

# 200 kills at random moments; see tests/crash.rs.
crash rounds="200":
    SYSTOLE_CRASH_ROUNDS={{rounds}} cargo test --test crash -- --nocapture

# Random faults on an ensemble of real servers, for so many minutes; see tests/cluster/chaos.rs.
chaos minutes="10":
    SYSTOLE_CHAOS_MINUTES={{minutes}} cargo test --test cluster random -- --nocapture

# 10,000 seeds of the simulated world; see results/.
sim seeds="0..10000" *ARGS:
    cargo run --release --features sim --bin sim -- --seeds {{seeds}} --threads `nproc` {{ARGS}}

# Measures; compare only runs of one machine and one day.
bench *ARGS:
    cargo bench {{ARGS}}

# Instructions of the hot paths against benches/instructions.toml; needs valgrind.
instructions *ARGS:
    cargo run --release --features sim --bin instructions -- {{ARGS}}

# Licences and known faults of what we depend on; needs cargo-deny.
deny:
    cargo deny check

# What the machine is set to, and what would be better. Changes nothing.
tuning:
    @tuning/check.sh
