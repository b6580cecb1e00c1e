//! The binary itself: one file, static, small.

use rbuild_tests::binary::rbuild;
use rbuild_tests::host::environment;
use rbuild_tests::space::TestSpace;

/// The most that the release binary may weigh.
const LIMIT_BYTES: u64 = 20_000_000;

#[test]
fn the_release_binary_is_static_and_small() {
    // A debug build is neither; what is shipped is what `cargo xtask` names.
    let Some(binary) = environment("RBUILD_BIN").filter(|path| path.contains("-musl/")) else {
        return;
    };
    let size = std::fs::metadata(&binary).unwrap().len();
    assert!(size < LIMIT_BYTES, "{binary} has {size} bytes");
    let bytes = std::fs::read(&binary).unwrap();
    assert_eq!(interpreter(&bytes), None, "{binary} wants a dynamic linker");
}

/// The dynamic linker that a 64-bit ELF file names in a program header.
fn interpreter(elf: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, width: usize| {
        elf[at..at + width].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let index = |value: u64| usize::try_from(value).unwrap();
    let (table, size, count) = (index(number(32, 8)), index(number(54, 2)), index(number(56, 2)));
    (0..count)
        .map(|header| table + header * size)
        .find(|at| number(*at, 4) == u64::from(PT_INTERP))
        .map(|at| {
            let (start, length) = (index(number(at + 8, 8)), index(number(at + 32, 8)));
            String::from_utf8_lossy(&elf[start..start + length - 1]).into_owned()
        })
}

#[test]
fn the_check_for_a_dynamic_linker_can_fail() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(
        interpreter(&own).is_some_and(|path| path.contains("ld")),
        "tests are linked dynamically"
    );
}

#[test]
fn it_runs_from_an_empty_root_without_anything_beside_it() {
    let space = TestSpace::new();
    let ran =
        space.run_with(&[("PATH", "/nowhere"), ("HOME", "/nowhere")], &["--version"]).success();
    assert!(ran.text().starts_with("rbuild "), "{}", ran.text());
    assert!(rbuild().exists());
}
