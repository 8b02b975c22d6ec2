//! Link options of the shared library for C.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=src/ffi/build.rs");
    let target = |key: &str| var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    // Cargo knows no shared library here (`cargo rustc --crate-type cdylib` makes one), so these options go to
    // tests, too, which they do not change.
    if var("CARGO_FEATURE_FFI").is_ok() && matches!(&*target("OS"), "linux" | "android") {
        // The first number of a version, and the second while that is 0, changes with the binary interface.
        let [major, minor] = ["MAJOR", "MINOR"]
            .map(|part| var(format!("CARGO_PKG_VERSION_{part}")).unwrap_or_default());
        let interface = if major == "0" { format!("{major}.{minor}") } else { major };
        println!("cargo::rustc-link-arg=-Wl,-soname,libbertlet.so.{interface}");
        // Android 15 and some Arm kernels have pages of 16 KB.
        println!("cargo::rustc-link-arg=-Wl,-z,max-page-size=16384");
    }
}
