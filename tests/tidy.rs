//! The injury: a house that nobody keeps. One shortcut at a time the layers melt together, `unsafe` turns up everywhere, and files
//! grow until nobody reads them. What may be where is written down here; a failure tells what to do.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The modules of the library, lowest first. A module names only modules of rows above its own; those of one row do not
/// know each other. ARCHITECTURE.md tells what each is for.
const LAYERS: &[&[&str]] = &[
    &["error", "settings", "stat", "units"],
    &["format", "sys"],
    &["protocol", "stop"],
    &["control", "growth", "helper", "window"],
    &["chunk"],
    &["scan"],
    &["index", "marks"],
    &["cover", "recovery"],
    &["durable"],
    &["opened", "space", "survey", "upkeep"],
    &["tailer", "writer"],
    &["reader"],
    &["verify"],
    &["capi"],
];

/// The rooms of `unsafe`: a directory with all that is in it, or a file.
const MAY_BE_UNSAFE: &[&str] = &[
    "src/capi/",
    "src/sys/",
    "src/chunk.rs",
    "src/control/mod.rs",
    "src/space.rs",
    "src/window.rs",
    "src/bin/immuta/bench/bare.rs",
];

/// Where nothing but bytes and numbers may be dealt with.
const PURE: &[&str] = &["src/format/", "src/protocol.rs"];

/// Of a file, without its tests.
const LINES_MAX: usize = 400;

/// Words that code of the product does not have, and what to write instead.
const NOT_IN_SRC: &[(&str, &str)] = &[
    ("todo!", "write it, or leave the feature out"),
    ("unimplemented!", "write it, or leave the feature out"),
    ("dbg!", "take it out"),
    (".allocate(", "fs2's allocate reports a full disk as success: use sys::file::reserve"),
    ("shm_open", "open(2) in the control directory, so that containers can share it"),
];

struct Source {
    /// From the root of the package: "src/sys/map.rs".
    name: String,
    text: String,
}

impl Source {
    /// The file without its tests, numbered from 1, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let product = self.text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = product.lines().zip(1..).map(|(line, n)| (n, line.split("//").next().unwrap_or_default()));
        lines.filter(|(_, line)| !line.trim().is_empty())
    }

    fn lines(&self) -> usize {
        self.text.split("#[cfg(test)]").next().unwrap_or_default().lines().count()
    }

    fn lies_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| if place.ends_with('/') { self.name.starts_with(place) } else { self.name == *place })
    }

    /// The module of the library that it belongs to: "sys" for src/sys/map.rs. `None` for lib.rs and the program.
    fn module(&self) -> Option<&str> {
        let path = self.name.strip_prefix("src/")?;
        let module = path.split('/').next()?.trim_end_matches(".rs");
        (module != "bin" && module != "lib").then_some(module)
    }

    /// The line with `super::` written as `crate::`, where the parent is the library.
    fn seen_from_the_root(&self, line: &str) -> String {
        let depth = self.name.trim_end_matches("/mod.rs").matches('/').count();
        line.replace(&"super::".repeat(depth), "crate::")
    }
}

/// The files of Rust below a directory of the package.
fn sources(dir: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![root.join(dir)];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What a package of its own has built, as benches/peers does, is not ours to read.
                if !path.ends_with("target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there is no Rust in {dir}");
    let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    found.iter().map(|path| Source { name: name(path), text: std::fs::read_to_string(path).unwrap() }).collect()
}

/// Whether `word` stands in `line` with no letter around it.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_letter) && !line[at + word.len()..].starts_with(is_letter))
}

/// The modules that a line names with `crate::`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            // The first of each: `crate::{error::{Error, Result}, units::KIB}` is not how this house writes it.
            Some(list) => list.trim_end_matches(['}', ';']).split(',').map(str::trim).collect(),
            None => vec![rest],
        })
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .filter(|module| module.starts_with(|c: char| c.is_lowercase()))
}

fn assert_none(complaints: &str) {
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn a_module_names_only_modules_of_lower_layers() {
    let layer = |module: &str| LAYERS.iter().position(|row| row.contains(&module));
    let mut complaints = String::new();
    for source in sources("src") {
        let Some(module) = source.module() else { continue };
        let Some(own) = layer(module) else {
            writeln!(complaints, "{}: give the module `{module}` a place in LAYERS in tests/tidy.rs", source.name)
                .unwrap();
            continue;
        };
        for (n, line) in source.code() {
            let line = source.seen_from_the_root(line);
            for other in named(&line).filter(|other| *other != module) {
                if layer(other).is_none_or(|other| other >= own) {
                    writeln!(
                        complaints,
                        "{}:{n}: `{module}` names `{other}`, which is not in a lower layer: move what both need below them, \
                         or hand it in as an argument",
                        source.name
                    )
                    .unwrap();
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_module_in_the_table_exists() {
    let sources = sources("src");
    for module in LAYERS.iter().flat_map(|row| *row) {
        assert!(
            sources.iter().any(|source| source.module() == Some(module)),
            "take `{module}` out of LAYERS in tests/tidy.rs"
        );
    }
    for place in MAY_BE_UNSAFE.iter().chain(PURE) {
        assert!(
            sources.iter().any(|source| source.lies_in(&[place])),
            "take {place} out of the tables in tests/tidy.rs"
        );
    }
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut complaints = String::new();
    for source in sources("src").iter().filter(|source| !source.lies_in(MAY_BE_UNSAFE)) {
        for (n, _) in source.code().filter(|(_, line)| has_word(line, "unsafe")) {
            writeln!(
                complaints,
                "{}:{n}: `unsafe` outside of its rooms: give src/sys/ a safe function that does it, or, where that cannot be, \
                 add the file to MAY_BE_UNSAFE in tests/tidy.rs and to ARCHITECTURE.md",
                source.name
            )
            .unwrap();
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_c_interface_uses_nothing_but_the_public_one() {
    let mut complaints = String::new();
    for source in sources("src").iter().filter(|source| source.module() == Some("capi")) {
        for (n, line) in source.code() {
            let line = source.seen_from_the_root(line);
            for other in named(&line).filter(|other| *other != "capi") {
                writeln!(
                    complaints,
                    "{}:{n}: `{other}` is not public: C gets what Rust gets, so make it a part of the API or do without",
                    source.name
                )
                .unwrap();
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_format_and_the_protocol_do_no_input_or_output() {
    let mut complaints = String::new();
    for source in sources("src").iter().filter(|source| source.lies_in(PURE)) {
        let io = ["std::fs", "std::io", "std::os", "std::process", "std::thread", "libc", "nix", "fs2"];
        for (n, line) in source.code() {
            for word in io.iter().filter(|word| line.contains(**word)) {
                writeln!(complaints, "{}:{n}: no {word} in here: let the caller read and write the bytes", source.name)
                    .unwrap();
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut complaints = String::new();
    for source in ["src", "tests", "benches", "examples"].iter().flat_map(|dir| sources(dir)) {
        let lines = source.lines();
        if lines > LINES_MAX {
            writeln!(
                complaints,
                "{}: {lines} lines, more than {LINES_MAX}: split it by what it deals with",
                source.name
            )
            .unwrap();
        }
    }
    assert_none(&complaints);
}

#[test]
fn nothing_is_left_to_do_and_nothing_is_known_to_be_wrong() {
    let mut complaints = String::new();
    for source in sources("src") {
        for (n, line) in source.code() {
            for (word, remedy) in NOT_IN_SRC.iter().filter(|(word, _)| line.contains(word)) {
                writeln!(complaints, "{}:{n}: `{word}`: {remedy}", source.name).unwrap();
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_tests_say_what_injury_they_reproduce() {
    for source in sources("tests") {
        let own =
            !source.name.contains("/support/") && !["cli", "readme"].iter().any(|other| source.name.contains(other));
        assert!(
            !own || source.text.starts_with("//! The injury"),
            "{}: begin with the story: \"//! The injury: …\"",
            source.name
        );
    }
}

/// What the other tests rely on.
#[test]
fn the_housekeeper_sees() {
    let source = |text: &str| Source { name: "src/sys/map.rs".into(), text: text.into() };
    let text = "use crate::error::Error;\n// unsafe\nlet a = unsafe { b };\n#[cfg(test)]\nmod tests { unsafe {} }\n";
    let found: Vec<_> = source(text).code().filter(|(_, line)| has_word(line, "unsafe")).map(|(n, _)| n).collect();
    assert_eq!(found, [3]);
    assert_eq!(source(text).lines(), 3);
    assert_eq!(source(text).module(), Some("sys"));
    let named_from = |name: &str, line: &str| {
        let source = Source { name: name.into(), text: String::new() };
        named(&source.seen_from_the_root(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(named_from("src/scan.rs", "use super::writer::Writer;"), ["writer"]);
    assert_eq!(named_from("src/tailer/mod.rs", "use super::writer::Writer;"), ["writer"]);
    assert_eq!(
        named_from("src/tailer/wait.rs", "use super::super::writer::Writer; use super::record::Record;"),
        ["writer"]
    );
    assert!(source("").lies_in(&["src/sys/"]) && !source("").lies_in(&["src/sys"]));
    assert_eq!(
        named("use crate::{error, units::KIB}; crate::scan::walk(crate::Error)").collect::<Vec<_>>(),
        ["error", "units", "scan"]
    );
    assert!(!has_word("unsafe_op_in_unsafe_fn", "unsafe"));
}
