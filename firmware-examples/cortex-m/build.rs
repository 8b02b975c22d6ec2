//! Gives the linker the memory map of the board that `BOARD` names.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let board = env::var("BOARD").expect("BOARD names a file of boards/, such as mps2-an386");
    let map = format!("boards/{board}.x");
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    fs::copy(&map, out.join("memory.x")).unwrap_or_else(|error| panic!("{map}: {error}"));
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-env-changed=BOARD");
    println!("cargo::rerun-if-changed={map}");
}
