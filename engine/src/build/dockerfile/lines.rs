//! From bytes to logical lines: parser directives, comments, continuations and here-documents.
//!
//! A logical line is an instruction with everything that belongs to it. What the instruction means is not known here,
//! but for the three that can have here-documents.

use super::fault::{Fault, Lines};

/// Most bytes of a Dockerfile.
pub const MAX_SIZE: usize = 4 << 20;
/// Most instructions of one.
const MAX_INSTRUCTIONS: usize = 20_000;

/// The directives at the beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The image of a frontend that somebody wants to read the file with. Ours reads it.
    pub syntax: Option<String>,
    /// What continues a line and quotes a character: `\` or a backtick.
    pub escape: char,
    /// Settings of the checks: `skip=...;error=true`.
    pub check: Option<String>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its delimiter, which is its name as a source of `COPY`.
    pub name: String,
    /// The text, every line with its end.
    pub content: String,
    /// Variables are to be expanded: the delimiter was not quoted.
    pub expand: bool,
    /// Tabs at the beginning of lines were taken away (`<<-`).
    pub strip: bool,
    /// The descriptor before `<<`; 0 for none.
    pub descriptor: u32,
}

/// An instruction as it is written, joined into one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    /// Where it is.
    pub lines: Lines,
    /// The joined text.
    pub text: String,
    /// What follows it.
    pub heredocs: Vec<Heredoc>,
}

/// Reads a whole file.
pub(super) fn read(text: &str) -> Result<(Directives, Vec<Logical>, Vec<Lines>), Fault> {
    if text.len() > MAX_SIZE {
        return Err(Fault::new(
            Lines { first: 1, last: 1 },
            format!("the file has more than {MAX_SIZE} bytes"),
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = text.find('\0') {
        let line = 1 + text[..at].matches('\n').count();
        return Err(Fault::new(Lines { first: line, last: line }, "the file has a NUL character"));
    }
    let raw: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let (directives, mut at) = directives(&raw)?;
    let (mut all, mut gaps) = (Vec::new(), Vec::new());
    while at < raw.len() {
        let line = raw[at].trim_start();
        if line.is_empty() || line.starts_with('#') {
            at += 1;
            continue;
        }
        let first = at + 1;
        let mut joined = String::new();
        let mut line = line;
        loop {
            at += 1;
            let Some(start) = continued(line, directives.escape) else {
                joined.push_str(line);
                break;
            };
            joined.push_str(start);
            // Comments and empty lines do not end it.
            while at < raw.len() && (raw[at].trim().is_empty() || raw[at].trim_start().starts_with('#')) {
                at += 1;
                if raw[at - 1].trim().is_empty() && at < raw.len() {
                    gaps.push(Lines { first: at, last: at });
                }
            }
            if at >= raw.len() {
                break;
            }
            line = raw[at];
        }
        let mut lines = Lines { first, last: at.min(raw.len()) };
        let mut heredocs = Vec::new();
        for mut heredoc in openers(&joined, directives.escape) {
            let mut ended = false;
            while at < raw.len() {
                let mut line = raw[at];
                at += 1;
                if heredoc.strip {
                    line = line.trim_start_matches('\t');
                }
                if line == heredoc.name {
                    ended = true;
                    break;
                }
                heredoc.content.push_str(line);
                heredoc.content.push('\n');
            }
            if !ended {
                return Err(Fault::new(lines, format!("unterminated heredoc: {}", heredoc.name))
                    .at(&heredoc.name)
                    .hint(format!("end it with a line that says {} and nothing else", heredoc.name)));
            }
            heredocs.push(heredoc);
        }
        lines.last = at.min(raw.len()).max(first);
        all.push(Logical { lines, text: joined.trim_end().to_owned(), heredocs });
        if all.len() > MAX_INSTRUCTIONS {
            return Err(Fault::new(lines, format!("the file has more than {MAX_INSTRUCTIONS} instructions")));
        }
    }
    Ok((directives, all, gaps))
}

/// What is before the mark that continues a line, if there is one.
fn continued(line: &str, escape: char) -> Option<&str> {
    let line = line.trim_end_matches([' ', '\t']);
    let start = line.strip_suffix(escape)?;
    // An escaped mark is none.
    (!start.ends_with(escape)).then_some(start)
}

fn directives(raw: &[&str]) -> Result<(Directives, usize), Fault> {
    let mut found = Directives { syntax: None, escape: '\\', check: None };
    let mut seen: Vec<String> = Vec::new();
    for (at, line) in raw.iter().enumerate() {
        let directive = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((key, value)) = directive else { return Ok((found, at)) };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            return Ok((found, at));
        }
        let lines = Lines { first: at + 1, last: at + 1 };
        if seen.contains(&key) {
            return Err(Fault::new(lines, format!("only one {key} parser directive can be used")).at(&key));
        }
        match key.as_str() {
            "syntax" => found.syntax = Some(value.to_owned()),
            "check" => found.check = Some(value.to_owned()),
            _ => {
                found.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        let message = format!("invalid escape token '{value}' does not match ` or \\");
                        return Err(Fault::new(lines, message).at(value));
                    }
                };
            }
        }
        seen.push(key);
    }
    Ok((found, raw.len()))
}

/// The here-documents that an instruction opens, in their order.
fn openers(text: &str, escape: char) -> Vec<Heredoc> {
    let mut words = text.split_whitespace();
    let mut name = words.next().unwrap_or_default();
    if name.eq_ignore_ascii_case("ONBUILD") {
        name = words.next().unwrap_or_default();
    }
    if !["RUN", "COPY", "ADD"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Vec::new();
    }
    // As the shell has it: within quotes and after a comment's sign there are none.
    let mut found = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    let mut quote = None;
    while at < chars.len() {
        let here = chars[at];
        if here == escape && quote != Some('\'') {
            at += 2;
            continue;
        }
        match quote {
            Some(open) if here == open => quote = None,
            Some(_) => {}
            None if here == '"' || here == '\'' => quote = Some(here),
            None if here == '<' && chars.get(at + 1) == Some(&'<') => {
                if chars.get(at + 2) == Some(&'<') {
                    // `<<<` takes a string.
                    at += 3;
                    continue;
                }
                if let Some((heredoc, next)) = opener(&chars, at) {
                    found.push(heredoc);
                    at = next;
                    continue;
                }
            }
            None => {}
        }
        at += 1;
    }
    found
}

/// One that opens at this place, and what comes after.
fn opener(chars: &[char], at: usize) -> Option<(Heredoc, usize)> {
    let digits: String = chars[..at].iter().rev().take_while(|c| c.is_ascii_digit()).collect();
    let before = at - digits.chars().count();
    // A shift of the shell's arithmetic is none: `$((1<<2))`.
    if before > 0 && !chars[before - 1].is_whitespace() {
        return None;
    }
    let descriptor = digits.chars().rev().collect::<String>().parse().unwrap_or(0);
    let mut next = at + 2;
    let strip = chars.get(next) == Some(&'-');
    if strip {
        next += 1;
    }
    let (mut name, mut expand) = (String::new(), true);
    while let Some(here) = chars.get(next).copied() {
        match here {
            '"' | '\'' => {
                expand = false;
                next += 1;
                loop {
                    let quoted = *chars.get(next)?;
                    next += 1;
                    if quoted == here {
                        break;
                    }
                    name.push(quoted);
                }
                continue;
            }
            c if c.is_whitespace() || "<>|&;()".contains(c) => break,
            c => name.push(c),
        }
        next += 1;
    }
    if name.is_empty() {
        return None;
    }
    Some((Heredoc { name, content: String::new(), expand, strip, descriptor }, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        read(text).unwrap().1.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_joined() {
        assert_eq!(texts("RUN a \\\n  b\n"), ["RUN a   b"]);
        assert_eq!(texts("RUN a \\  \n# note\n\n b\nCMD c"), ["RUN a  b", "CMD c"]);
        assert_eq!(texts("RUN a \\\\\nCMD b"), ["RUN a \\\\", "CMD b"]);
        assert_eq!(texts("# escape=`\nRUN a `\n b\\\nCMD c"), ["RUN a  b\\", "CMD c"]);
        assert_eq!(texts("\u{feff}FROM x\r\nRUN y\r\n"), ["FROM x", "RUN y"]);
        assert_eq!(texts("RUN a \\"), ["RUN a"]);
        assert_eq!(texts("  \n#c\n"), Vec::<String>::new());
        // A comment ends the directives.
        assert_eq!(texts("# about\n# escape=`\nRUN a `\nCMD b"), ["RUN a `", "CMD b"]);
    }

    #[test]
    fn here_documents() {
        let all = read("RUN <<EOF cat <<-'B'\na\nEOF\n\tb\n\tB\nCMD x\n").unwrap().1;
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].lines, Lines { first: 1, last: 5 });
        let [one, two] = all[0].heredocs.as_slice() else { panic!("{all:?}") };
        assert_eq!((one.content.as_str(), one.expand, one.strip), ("a\n", true, false));
        assert_eq!((two.content.as_str(), two.expand, two.strip), ("b\n", false, true));
        assert_eq!(all[1].lines, Lines { first: 6, last: 6 });
        for none in
            ["RUN echo $((1<<2))", "RUN cat <<< word", "RUN echo '<<EOF'", "ENV A=<<EOF", "RUN a \\<<EOF"]
        {
            assert_eq!(read(none).unwrap().1[0].heredocs, [], "{none}");
        }
        let fault = read("FROM x\nRUN <<EOF\na\n").unwrap_err();
        assert_eq!(fault.to_string(), "dockerfile parse error on line 2: unterminated heredoc: EOF");
    }

    #[test]
    fn directives_are_at_the_beginning() {
        let (found, ..) =
            read("#syntax = docker/dockerfile:1\n# escape=`\n# check=skip=all\nFROM x").unwrap();
        assert_eq!(found.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!((found.escape, found.check.as_deref()), ('`', Some("skip=all")));
        assert!(read("# escape=x\nFROM x").is_err());
        assert!(read("# escape=`\n# escape=`\nFROM x").is_err());
        assert!(read("FROM x\0").is_err());
    }
}
