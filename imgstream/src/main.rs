//! `imgstream`: pack, sign, inspect, verify, serve, unpack and write images. The commands live in `cli`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
