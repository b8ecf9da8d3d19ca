//! The daemon as the package `tenure-sidecar` has it, for the tests here to start.

fn main() -> std::process::ExitCode {
    tenure_sidecar::server::main()
}
