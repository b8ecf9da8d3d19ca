//! The command as the package `tenure-sidecar` has it, for the tests here to start.

fn main() -> std::process::ExitCode {
    tenure_sidecar::command::main()
}
