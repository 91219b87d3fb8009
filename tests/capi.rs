//! The injury: a program in C that crashes, hangs, leaks or corrupts where the header has promised an error; a header that is not
//! of this library; a result that another compiler reads at another place.
//!
//! The libraries are built here, as the README says, so that plain `cargo test` needs neither the feature nor a command before it. What
//! is tested is in `tests/capi/*.c`.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{LIMIT, Log, skip, until};
use tempfile::TempDir;

/// How long a program may take: under valgrind, on a machine that is busy with other things.
const PROGRAM_LIMIT: Duration = Duration::from_secs(400);

/// What a C compiler and the C library are asked for.
const C: &[&str] = &["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra"];

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The directory with libimmuta.a and libimmuta.so, in the profile of this test.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let (profile, name) = if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
        // Not the directory of `cargo test`, whose lock it may hold; but one that stays, so that this is done once.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["rustc", "--quiet", "--lib", "--no-default-features", "--features", "capi"]);
        cargo.args(["--crate-type", "cdylib,staticlib", "--profile", profile, "--target-dir"]).arg(&target);
        let built = cargo.current_dir(root("")).status().expect("cargo runs");
        assert!(built.success(), "the C libraries cannot be built");
        target.join(name)
    })
}

/// Whether a tool is here; says SKIPPED if not.
fn has(tool: &str, why: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("needs {tool}: {why}"));
    }
    found
}

fn has_c_compiler() -> bool {
    has("cc", "the C interface is tested by programs in C")
}

#[derive(Clone, Copy, Debug)]
enum Linked {
    Static,
    Shared,
}

const BOTH: [Linked; 2] = [Linked::Static, Linked::Shared];

/// Compiles a program from files below the root of the package.
fn compile(compiler: &str, options: &[&str], sources: &[&str], linked: Linked, program: &Path) {
    let libraries = libraries();
    let mut command = Command::new(compiler);
    command.args(options).arg("-I").arg(root("include")).args(sources.iter().map(|source| root(source)));
    match linked {
        Linked::Static => command.arg(libraries.join("libimmuta.a")).args(["-lpthread", "-ldl", "-lm"]),
        Linked::Shared => {
            let rpath = format!("-Wl,-rpath,{}", libraries.display());
            command.arg("-L").arg(libraries).args(["-limmuta", "-lpthread", &rpath])
        }
    };
    // The library's directory has both; the static one is named by its file.
    let output = command.arg("-o").arg(program).output().expect("the compiler runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    // A compiler of tomorrow may warn of more.
    let strict = std::env::var_os("IMMUTA_REQUIRE_ALL").is_some();
    assert!(!strict || output.stderr.is_empty(), "{command:?} warns: {}", String::from_utf8_lossy(&output.stderr));
}

/// A process that ends with its test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}")))
    }

    fn end(&mut self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(begin.elapsed() < limit, "still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("a signal to a child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program that must end with 0 and print "ok".
fn goes_well(command: &mut Command, dir: &TempDir) {
    let (out, err) = (dir.path().join("stdout"), dir.path().join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    // Backtraces are of no use to valgrind, which has its own.
    command.env("IMMUTA_CONTROL_DIR", dir.path().join("control")).env_remove("RUST_BACKTRACE");
    let status = Running::start(command).end(PROGRAM_LIMIT);
    let said = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    assert!(status.success() && said(&out) == "ok\n", "{command:?} ended with {status}: {}\n{}", said(&err), logs(dir));
}

/// What valgrind has said, of all processes.
fn logs(dir: &TempDir) -> String {
    let logs = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "valgrind"));
    logs.map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
}

/// The program of all tests, and a directory to run it in.
fn program(linked: Linked) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("control")).unwrap();
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    let program = dir.path().join("program");
    let files = ["errors", "flushes", "fork", "main", "reading", "threads", "writing", "wrong"];
    let sources = files.map(|file| format!("tests/capi/{file}.c"));
    let version = format!("-DIMMUTA_EXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    compile("cc", &[C, &[version.as_str()]].concat(), &sources, linked, &program);
    (dir, program)
}

#[test]
fn a_program_in_c_gets_what_the_header_says() {
    if !has_c_compiler() {
        return;
    }
    for linked in BOTH {
        let (dir, program) = program(linked);
        goes_well(Command::new(program).arg(dir.path().join("tests")).arg("20000"), &dir);
    }
}

#[test]
fn a_program_in_c_leaks_nothing_and_touches_only_what_is_its_own() {
    if !has_c_compiler() || !has("valgrind", "it finds leaks and wrong accesses") {
        return;
    }
    for linked in BOTH {
        let (dir, program) = program(linked);
        let mut valgrind = Command::new("valgrind");
        // Without inlined frames, a read of which takes seconds. Still reachable is what the library has one of in a process.
        valgrind.args(["--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible"]);
        valgrind.args([
            "--errors-for-leak-kinds=definite,indirect,possible",
            "--read-inline-info=no",
            "--num-callers=40",
        ]);
        valgrind.arg(format!("--suppressions={}", root("tests/capi/valgrind.supp").display()));
        valgrind.arg(format!("--log-file={}/%p.valgrind", dir.path().display()));
        goes_well(valgrind.arg(program).arg(dir.path().join("tests")).arg("2000"), &dir);
        // Of a forked child valgrind says what it found, but not by its exit code.
        assert!(!logs(&dir).lines().any(|line| line.contains("    at 0x")), "{linked:?}: {}", logs(&dir));
        assert!(logs(&dir).contains("LEAK SUMMARY") || logs(&dir).contains("no leaks are possible"), "{}", logs(&dir));
    }
}

#[test]
fn the_header_serves_every_compiler_that_it_promises_to() {
    if !has_c_compiler() {
        return;
    }
    for standard in ["-std=c99", "-std=c11", "-std=c17"] {
        let mut command = Command::new("cc");
        command.args([standard, "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c"]);
        let output = command.arg(root("include/immuta.h")).output().unwrap();
        assert!(output.status.success(), "{standard}: {}", String::from_utf8_lossy(&output.stderr));
    }
    if !has("c++", "the header serves C++ as well") {
        return;
    }
    for (linked, standard) in BOTH.into_iter().zip(["-std=c++11", "-std=c++17"]) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("control")).unwrap();
        let program = dir.path().join("plus");
        let options = [standard, "-pedantic-errors", "-Wall", "-Wno-missing-field-initializers"];
        compile("c++", &options, &["tests/capi/plus.cpp"], linked, &program);
        goes_well(Command::new(program).arg(dir.path().join("log")), &dir);
    }
}

#[test]
fn the_examples_pass_lines_from_one_to_the_other() {
    if !has_c_compiler() {
        return;
    }
    for (linked, signal) in BOTH.into_iter().zip([Signal::SIGINT, Signal::SIGTERM]) {
        let log = Log::new();
        let example = |name: &str| {
            let program = log.dir.path().join(name);
            let options = ["-std=c11", "-Wall", "-Wextra", "-pedantic"];
            compile("cc", &options, &[&format!("examples/c/{name}.c")], linked, &program);
            let mut command = Command::new(program);
            command.arg(&log.path).env("IMMUTA_CONTROL_DIR", &log.control);
            command
        };
        let (lines, said) = (log.dir.path().join("lines"), log.dir.path().join("said"));
        std::fs::write(&lines, "one\n\nthree").unwrap();
        let mut follower =
            Running::start(example("follower").stdout(File::create(&said).unwrap()).stderr(Stdio::inherit()));
        let mut producer = Running::start(example("producer").stdin(File::open(&lines).unwrap()));
        assert!(producer.end(LIMIT).success());
        until("the follower has said what it read", || {
            std::fs::read_to_string(&said).unwrap() == "0 one\n1 \n2 three\n"
        });
        follower.signal(signal);
        assert!(follower.end(LIMIT).success(), "a signal ends it well");
        assert_eq!(log.parse(), [&b"one"[..], b"", b"three"]);

        // A log that is none.
        let mut wrong = example("producer");
        let output = wrong.env("IMMUTA_CONTROL_DIR", "").arg("more").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        std::fs::write(&log.path, "1234567").unwrap();
        let output = example("follower").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("damaged at position 0"));
    }
}

#[test]
fn the_program_of_the_readme_prints_what_was_appended() {
    if !has_c_compiler() {
        return;
    }
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    let text = readme.split("```c\n").nth(1).expect("README.md has a program in C").split("```").next().unwrap();
    let log = Log::new();
    let source = log.path.with_file_name("program.c");
    std::fs::write(&source, text).unwrap();
    let program = source.with_extension("");
    compile("cc", &["-std=c99", "-pedantic-errors", "-Wall"], &[source.to_str().unwrap()], Linked::Static, &program);
    let run =
        || Command::new(&program).current_dir(log.dir.path()).env("IMMUTA_CONTROL_DIR", &log.control).output().unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such log"));
    let mut writer = log.writer();
    writer.append(b"hello").unwrap();
    writer.append(b"world").unwrap();
    let output = run();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\nworld\n");
}

/// Text of all that C sees: src/capi without its tests.
fn source() -> String {
    let files =
        std::fs::read_dir(root("src/capi")).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()));
    files.map(|text| text.unwrap().split("#[cfg(test)]").next().unwrap().to_owned()).collect()
}

/// The name that ends where `text` ends.
fn last_name(text: &str) -> String {
    text.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
}

/// Needs no tool: .ci/run compares the whole header with what cbindgen makes.
#[test]
fn the_header_has_each_function_of_the_source_and_says_what_it_does_and_where() {
    let header = std::fs::read_to_string(root("include/immuta.h")).unwrap();
    let exported: BTreeSet<_> =
        source().split("#[unsafe(no_mangle)]").skip(1).map(|rest| last_name(rest.split('(').next().unwrap())).collect();
    let mut declared = BTreeSet::new();
    for (at, _) in header.match_indices(");\n") {
        let before = &header[..at];
        let start = before.rfind("*/\n").expect("a declaration stands behind its comment") + 3;
        let comment = &before[before[..start].rfind("/**").unwrap()..start];
        let declaration = &before[start..];
        let name = last_name(declaration.split('(').next().unwrap());
        assert!(
            ["thread", "Thread"].iter().any(|word| comment.contains(word)),
            "{name} says from which threads: {comment}"
        );
        assert!(declared.insert(name), "{declaration} follows a comment of its own");
    }
    assert_eq!(exported, declared, "run the command of cbindgen.toml");
    assert!(exported.len() > 20, "{exported:?}");
    for tested in &exported {
        let name = format!("{tested}(");
        let files = std::fs::read_dir(root("tests/capi")).unwrap().flatten();
        let texts: String = files.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect();
        assert!(texts.contains(&name), "{tested} is called by no test");
    }
}
