//! Finds the Python that the extension is built for, compiles the C shim against its headers, and tells the crate its version.
//!
//! The interpreter is `PYO3_PYTHON`, or `python3`. The crate gets pyo3's usual configuration: `Py_3_11` up to the version,
//! `Py_GIL_DISABLED`. The test package of the shim (`shim/tests`) is built by this same file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Asks the interpreter for its directories of headers, one a line.
const INCLUDES: &str =
    "import sysconfig; print(sysconfig.get_path('include')); print(sysconfig.get_path('platinclude'))";

fn includes() -> Vec<PathBuf> {
    let python = env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&python).args(["-I", "-S", "-c", INCLUDES]).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {python}: {error}"));
    assert!(output.status.success(), "{python}: {}", String::from_utf8_lossy(&output.stderr));
    let mut directories: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect();
    directories.dedup();
    assert!(
        directories.iter().any(|directory| directory.join("Python.h").exists()),
        "{python} has no Python.h in {directories:?}: install its development headers"
    );
    directories
}

/// The C files of a directory, in the order of their names.
fn sources(directory: &Path) -> Vec<PathBuf> {
    println!("cargo:rerun-if-changed={}", directory.display());
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    files
}

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");

    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let shim = manifest.ancestors().map(|directory| directory.join("shim")).find(|shim| shim.join("shim.h").exists());
    let shim = shim.expect("the crate has a directory shim");
    let mut files = sources(&shim);
    if shim != manifest.join("shim") {
        files.extend(sources(&manifest));
    }

    let mut build = cc::Build::new();
    build.files(&files).include(&shim).opt_level(2).std("gnu11").extra_warnings(true);
    // The frame of `internal.h` needs its cleanup to be run by an unwinding.
    build.flag("-fexceptions");
    // CPython's own headers are not held to our warnings.
    for directory in includes() {
        for directory in [directory.join("internal"), directory] {
            build.flag("-isystem").flag(directory);
        }
    }
    build.compile("offset_shim");
}
