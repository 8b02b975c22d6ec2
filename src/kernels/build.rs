//! Tells the code what the target is, which no stable `cfg` says.

use std::env::var;

/// Cores with the DSP extension and `vfma.f32` whose targets do not tell.
const DSP: [&str; 6] =
    ["cortex-m33", "cortex-m35p", "cortex-a5", "cortex-a7", "cortex-a15", "cortex-a17"];

/// Cores with MVE and its floats.
const MVE: [&str; 3] = ["cortex-m52", "cortex-m55", "cortex-m85"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |what: &str| var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let target = var("TARGET").unwrap_or_default();
    // Cortex-M has f32 in hardware at most, but for some M7; RISC-V of 32 bits without an operating
    // system of its own mostly has neither.
    let soft_f64 = match of_target("ARCH").as_str() {
        "arm" => of_target("OS") == "none",
        "riscv32" => of_target("OS") != "linux",
        _ => false,
    };
    let cpu = target_cpu();
    let floats = target.ends_with("hf");
    let dsp = floats && (target.starts_with("thumbv7em") || DSP.contains(&cpu.as_str()));
    let mve = floats && MVE.contains(&cpu.as_str());
    if dsp || mve {
        let directive = match target.starts_with("thumbv8m") {
            true => format!(".cpu {cpu}"),
            false => ".fpu fpv4-sp-d16".into(),
        };
        println!("cargo::rustc-env=BERTLET_ASSEMBLER={directive}");
    }
    // A program without std knows its CPU, and flash is small: it has the kernels for that alone.
    let portable = !(dsp || mve) || var("CARGO_FEATURE_STD").is_ok();
    let names = [
        ("bertlet_soft_f64", soft_f64),
        ("bertlet_dsp", dsp),
        ("bertlet_mve", mve),
        ("bertlet_portable", portable),
    ];
    for (name, holds) in names {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if holds {
            println!("cargo::rustc-cfg={name}");
        }
    }
}

/// The CPU that the build is for, as `-C target-cpu` states it.
fn target_cpu() -> String {
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let cpu = flags.split('\x1f').filter_map(|flag| flag.split_once("target-cpu=")).next_back();
    cpu.map_or(String::new(), |(_, cpu)| cpu.into())
}
