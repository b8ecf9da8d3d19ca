//! The `tenure` command.

fn main() -> std::process::ExitCode {
    tenure_sidecar::command::main()
}
