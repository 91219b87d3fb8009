//! Whether logrotate is told to work on a log. With `copytruncate` it cuts a live log, which ends with SIGBUS whoever has it
//! mapped; otherwise it renames the log while its writer goes on with it.

use std::path::{Path, PathBuf};

use super::finding::{Findings, shown};

/// How deep files may include each other.
const DEPTH_MOST: u32 = 8;
/// Files in a directory that logrotate does not take for a configuration.
const TABOO: &[&str] = &[
    "~",
    ",v",
    ".bak",
    ".cfsaved",
    ".disabled",
    ".dpkg-bak",
    ".dpkg-del",
    ".dpkg-dist",
    ".dpkg-new",
    ".dpkg-old",
    ".rpmnew",
    ".rpmorig",
    ".rpmsave",
    ".swp",
    ".ucf-dist",
    ".ucf-new",
    ".ucf-old",
];
/// What begins a script, which ends with `endscript`.
const SCRIPTS: &[&str] = &["prerotate", "postrotate", "firstaction", "lastaction", "preremove"];

pub fn examine(findings: &mut Findings, log: &Path, etc: &Path) {
    let check = "logrotate";
    let mut config = Config::default();
    config.read(&etc.join("logrotate.conf"), 0);
    config.read_directory(&etc.join("logrotate.d"), 0);
    let names = names_of(log);
    let matching: Vec<_> = config.rules.iter().filter(|rule| names.iter().any(|name| rule.matches(name))).collect();
    for Rule { file, pattern, copytruncate } in &matching {
        let place = format!("{} names it by {pattern}", shown(file));
        if *copytruncate {
            let found =
                format!("{place}, with copytruncate: cutting a live log ends its writer and followers with SIGBUS");
            findings.problem(
                check,
                found,
                "take the log out of it: a log of immuta cannot be rotated while it is written",
            );
        } else {
            let found = format!("{place}: the writer goes on in the renamed file, and followers end with an error");
            findings.warning(
                check,
                found,
                "take the log out of it, or have it close the writer first and start it anew afterwards",
            );
        }
    }
    for path in &config.unreadable {
        findings.warning(check, format!("{} cannot be read", shown(path)), "run this as root to have it looked at");
    }
    if matching.is_empty() && config.unreadable.is_empty() {
        findings.ok(check, format!("no configuration under {} names it", shown(etc)));
    }
}

/// The absolute names that a log has, with links and without.
fn names_of(log: &Path) -> Vec<String> {
    let absolute = std::path::absolute(log).ok();
    let resolved = log.canonicalize().ok().or_else(|| {
        let absolute = absolute.as_ref()?;
        Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?))
    });
    [absolute, resolved].into_iter().flatten().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    file: PathBuf,
    pattern: String,
    copytruncate: bool,
}

impl Rule {
    fn matches(&self, name: &str) -> bool {
        matches(&self.pattern, name) || matches(&resolved(&self.pattern), name)
    }
}

/// The pattern with links resolved in the directories above its first wildcard.
fn resolved(pattern: &str) -> String {
    let plain = pattern.split(['*', '?', '[']).next().unwrap_or_default();
    let Some((directory, _)) = plain.rsplit_once('/') else { return pattern.to_owned() };
    match Path::new(directory).canonicalize() {
        Ok(path) => format!("{}{}", path.to_string_lossy().trim_end_matches('/'), &pattern[directory.len()..]),
        Err(_) => pattern.to_owned(),
    }
}

/// What a word of a configuration is.
#[derive(Clone, Copy)]
enum Next {
    Pattern,
    Directive,
    Argument,
    Included,
}

/// What the files say, in the order in which logrotate reads them.
#[derive(Debug, Default)]
struct Config {
    rules: Vec<Rule>,
    /// What holds where a rule says nothing; later files take it over.
    copytruncate: bool,
    seen: Vec<PathBuf>,
    unreadable: Vec<PathBuf>,
}

impl Config {
    fn read(&mut self, path: &Path, depth: u32) {
        if self.seen.iter().any(|seen| seen == path) || depth > DEPTH_MOST {
            return;
        }
        self.seen.push(path.to_owned());
        match std::fs::read(path) {
            Ok(bytes) => self.parse(path, &String::from_utf8_lossy(&bytes), depth),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => self.unreadable.push(path.to_owned()),
        }
    }

    fn read_directory(&mut self, path: &Path, depth: u32) {
        let Ok(entries) = std::fs::read_dir(path) else { return };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.retain(|path| !TABOO.iter().any(|taboo| path.to_string_lossy().ends_with(taboo)));
        files.sort();
        files.iter().for_each(|file| self.read(file, depth));
    }

    fn parse(&mut self, file: &Path, text: &str, depth: u32) {
        let mut patterns: Vec<String> = Vec::new();
        // Within braces: what holds there.
        let mut block: Option<bool> = None;
        let mut in_script = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if in_script {
                in_script = line != "endscript";
                continue;
            }
            let is_directive = block.is_some() || line.starts_with(|c: char| c.is_ascii_alphabetic());
            let mut next = if is_directive { Next::Directive } else { Next::Pattern };
            for word in words(line) {
                match (next, word.as_str()) {
                    (_, "{") => {
                        block = Some(self.copytruncate);
                        next = Next::Directive;
                    }
                    (_, "}") => {
                        let copytruncate = block.take().unwrap_or(self.copytruncate);
                        let rule = |pattern| Rule { file: file.to_owned(), pattern, copytruncate };
                        self.rules.extend(patterns.drain(..).map(rule));
                        next = Next::Pattern;
                    }
                    (Next::Pattern, _) => patterns.push(word),
                    (Next::Directive, "include") => next = Next::Included,
                    (Next::Directive, directive) => {
                        if ["copytruncate", "nocopytruncate"].contains(&directive) {
                            *block.as_mut().unwrap_or(&mut self.copytruncate) = directive == "copytruncate";
                        }
                        in_script = SCRIPTS.contains(&directive);
                        next = Next::Argument;
                    }
                    (Next::Included, path) => {
                        self.include(Path::new(path), depth);
                        next = Next::Argument;
                    }
                    (Next::Argument, _) => {}
                }
            }
        }
    }

    fn include(&mut self, path: &Path, depth: u32) {
        if path.is_dir() {
            self.read_directory(path, depth + 1);
        } else {
            self.read(path, depth + 1);
        }
    }
}

/// The words of a line; braces are words of their own, quotes and backslashes keep blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut characters) = (None, line.chars());
    while let Some(c) = characters.next() {
        let word = words.last_mut().expect("there is one from the beginning");
        match c {
            _ if quote == Some(c) => quote = None,
            '\\' => word.extend(characters.next()),
            _ if quote.is_some() => word.push(c),
            '"' | '\'' => quote = Some(c),
            '{' | '}' => words.extend([c.to_string(), String::new()]),
            c if c.is_whitespace() => words.push(String::new()),
            c => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// As glob(7): a wildcard stands for no slash, and for no dot at the beginning of a name.
fn matches(pattern: &str, name: &str) -> bool {
    let (patterns, names): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), name.split('/').collect());
    patterns.len() == names.len()
        && patterns.iter().zip(&names).all(|(pattern, name)| {
            let hidden = name.starts_with('.') && !pattern.starts_with('.');
            let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
            !hidden && part_matches(&pattern, &name)
        })
}

fn part_matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|n| part_matches(rest, &name[n..])),
        (['?', rest @ ..], [_, tail @ ..]) => part_matches(rest, tail),
        (['[', rest @ ..], [c, tail @ ..]) => match set_has(rest, *c) {
            Some((has, rest)) => has && part_matches(rest, tail),
            None => *c == '[' && part_matches(rest, tail),
        },
        ([p, rest @ ..], [c, tail @ ..]) => p == c && part_matches(rest, tail),
        _ => false,
    }
}

/// Whether the set that begins here has `c`, and what follows it; `None` where it does not end.
fn set_has(set: &[char], c: char) -> Option<(bool, &[char])> {
    let negated = matches!(set.first(), Some('!' | '^'));
    let set = if negated { &set[1..] } else { set };
    // A bracket that comes first is of the set.
    let end = 1 + set.iter().skip(1).position(|c| *c == ']')?;
    let (mut members, mut has) = (&set[..end], false);
    loop {
        members = match members {
            [from, '-', to, rest @ ..] => {
                has |= (*from..=*to).contains(&c);
                rest
            }
            [member, rest @ ..] => {
                has |= *member == c;
                rest
            }
            [] => return Some((has != negated, &set[end + 1..])),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(String, bool)> {
        let mut config = Config::default();
        config.parse(Path::new("x"), text, 0);
        config.rules.into_iter().map(|rule| (rule.pattern, rule.copytruncate)).collect()
    }

    #[test]
    fn wildcards_stay_within_a_name() {
        for (pattern, name, expected) in [
            ("/var/log/*.log", "/var/log/events.log", true),
            ("/var/log/*.log", "/var/log/app/events.log", false),
            ("/var/log/*/*.log", "/var/log/app/events.log", true),
            ("/var/log/*", "/var/log/.hidden", false),
            ("/var/log/.*", "/var/log/.hidden", true),
            ("/var/log/event?.log", "/var/log/events.log", true),
            ("/var/log/event?.log", "/var/log/event.log", false),
            ("/var/log/[a-f]vents.log", "/var/log/events.log", true),
            ("/var/log/[!a-f]vents.log", "/var/log/events.log", false),
            ("/var/log/[]e]vents.log", "/var/log/events.log", true),
            ("/var/log/[events.log", "/var/log/[events.log", true),
            ("/var/log/*a*b*c", "/var/log/xaxbxc", true),
            ("/var/log/*a*b*c", "/var/log/xaxcxb", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_rule_has_what_its_braces_and_the_lines_above_say() {
        let text = "\
# copytruncate
weekly
/a \"/b c\" {
    copytruncate # nocopytruncate
}
/d
/e
{
  postrotate
    copytruncate
    }
  endscript
  missingok
}
copytruncate
/f { nocopytruncate }
/g {
  rotate 4
}
";
        let expected = [("/a", true), ("/b c", true), ("/d", false), ("/e", false), ("/f", false), ("/g", true)];
        assert_eq!(rules(text), expected.map(|(pattern, cut)| (pattern.to_owned(), cut)));
    }

    #[test]
    fn files_include_others_and_not_themselves() {
        let etc = tempfile::tempdir().unwrap();
        let parts = etc.path().join("logrotate.d");
        std::fs::create_dir(&parts).unwrap();
        let conf = etc.path().join("logrotate.conf");
        std::fs::write(&conf, format!("include {}\ninclude {}\n", parts.display(), conf.display())).unwrap();
        std::fs::write(parts.join("a"), "/a {\n copytruncate\n}\n").unwrap();
        std::fs::write(parts.join("a.bak"), "/b {\n copytruncate\n}\n").unwrap();
        let mut config = Config::default();
        config.read(&conf, 0);
        config.read_directory(&parts, 0);
        assert_eq!(config.rules, [Rule { file: parts.join("a"), pattern: "/a".into(), copytruncate: true }]);
    }
}
