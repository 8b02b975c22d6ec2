//! Tells the code what the target does in software, which no stable `cfg` says.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(bertlet_soft_f64)");
    let of_target = |what: &str| var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    // Cortex-M has f32 in hardware at most, but for some M7; RISC-V of 32 bits without an operating
    // system of its own mostly has neither.
    let soft_f64 = match of_target("ARCH").as_str() {
        "arm" => of_target("OS") == "none",
        "riscv32" => of_target("OS") != "linux",
        _ => false,
    };
    if soft_f64 {
        println!("cargo::rustc-cfg=bertlet_soft_f64");
    }
}
