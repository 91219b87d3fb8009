//! What was found, how bad it is, and what to do about it.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// Slower or less safe than it could be.
    Warning,
    /// Something would not work.
    Problem,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

#[derive(Debug)]
struct Finding {
    level: Level,
    /// What was looked at: `free_space`.
    check: &'static str,
    found: String,
    /// `None` with what is as it should be.
    remedy: Option<String>,
}

/// All that was found, in the order in which it was looked for.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.0.push(Finding { level: Level::Ok, check, found: found.into(), remedy: None });
    }

    pub fn warning(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { level: Level::Warning, check, found: found.into(), remedy: Some(remedy.into()) });
    }

    pub fn problem(&mut self, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { level: Level::Problem, check, found: found.into(), remedy: Some(remedy.into()) });
    }

    pub fn has_problem(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Problem)
    }

    /// A line a finding, and below it the remedy.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { level, check, found, remedy } in &self.0 {
            let (level, check) = (level.name(), check.replace('_', " "));
            // A string takes all that is written to it.
            let _ = writeln!(text, "{level:<9}{check}: {found}");
            if let Some(remedy) = remedy {
                let _ = writeln!(text, "{:<9}remedy: {remedy}", "");
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        let object = |finding: &Finding| {
            let Finding { level, check, found, remedy } = finding;
            json!({ "level": level.name(), "check": check, "found": found, "remedy": remedy })
        };
        self.0.iter().map(object).collect()
    }
}

/// A path for a person: a file's name must not be able to command a terminal, or to look like a second finding.
pub fn shown(path: &Path) -> String {
    let path = path.to_string_lossy();
    path.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// A path as an argument of a shell.
pub fn quoted(path: &Path) -> String {
    let text = shown(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c);
    if !text.starts_with('-') && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        let mut findings = Findings::default();
        findings.ok("kernel", "new");
        findings.warning("free_space", "little", "make some");
        assert!(!findings.has_problem());
        findings.problem("log", "gone", "look for it");
        assert!(findings.has_problem());
        assert_eq!(
            findings.text(),
            "ok       kernel: new\n\
             warning  free space: little\n\x20        remedy: make some\n\
             problem  log: gone\n         remedy: look for it\n"
        );
        assert_eq!(
            findings.json()[1],
            json!({"level": "warning", "check": "free_space", "found": "little", "remedy": "make some"})
        );
        assert_eq!(findings.json()[0]["remedy"], Value::Null);
    }

    #[test]
    fn a_name_cannot_pretend_to_be_a_line() {
        assert_eq!(shown(Path::new("a\nok \x1b[2J")), "a\\nok \\u{1b}[2J");
        assert_eq!(quoted(Path::new("/dev/shm/immuta-1-2")), "/dev/shm/immuta-1-2");
        assert_eq!(quoted(Path::new("my log's")), r"'my log'\''s'");
    }
}
