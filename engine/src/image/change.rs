//! Changes to an image's settings, written as instructions of a Dockerfile: `CMD ["sh"]`, `ENV A=b`.
//!
//! Only those instructions that change nothing but settings. This is not the builder: variables are not expanded.

use dhow_images::{Empty, RunConfig};
use serde_json::json;

use crate::error::{Error, Result};

/// A part of an instruction, or what is wrong with it.
type Said<T> = std::result::Result<T, String>;

/// Applies one instruction, as `--change` of `import` takes it.
///
/// # Errors
/// [`Error::Invalid`] for an instruction that changes more than settings, or that is not valid.
pub fn apply(config: &mut RunConfig, instruction: &str) -> Result<()> {
    let text = instruction.trim();
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
    let invalid = |reason: &str| Error::Invalid(format!("{name}: {reason}: \"{instruction}\""));
    if !is_change(&name) {
        return Err(Error::Invalid(format!("{} is not a valid change command", name.to_ascii_lowercase())));
    }
    if rest.is_empty() {
        return Err(Error::Invalid(format!("{name} requires at least one argument")));
    }
    match name.as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => config.entrypoint = command(rest),
        "ENV" => {
            for (key, value) in pairs(rest).map_err(|reason| invalid(&reason))? {
                let entry = format!("{key}={value}");
                let prefix = format!("{key}=");
                match config.env.iter_mut().find(|old| old.starts_with(&prefix)) {
                    Some(old) => *old = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).map_err(|reason| invalid(&reason))?),
        "EXPOSE" => {
            for word in words(rest).map_err(|reason| invalid(&reason))? {
                for port in ports(&word).ok_or_else(|| invalid("invalid containerPort"))? {
                    config.exposed_ports.insert(port, Empty {});
                }
            }
        }
        "VOLUME" => {
            let folders = match array(rest) {
                Some(folders) => folders,
                None => words(rest).map_err(|reason| invalid(&reason))?,
            };
            if folders.iter().any(String::is_empty) {
                return Err(invalid("VOLUME specified can not be an empty string"));
            }
            config.volumes.extend(folders.into_iter().map(|folder| (folder, Empty {})));
        }
        "WORKDIR" => config.working_dir = joined(&config.working_dir, &unquoted(rest)),
        "USER" => config.user = unquoted(rest),
        "STOPSIGNAL" => config.stop_signal = Some(unquoted(rest)),
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(invalid(&format!("{trigger} isn't allowed as an ONBUILD trigger")));
            }
            config.on_build.push(rest.to_owned());
        }
        // The only one that is left.
        _ => config.healthcheck = Some(health_check(rest).map_err(|reason| invalid(&reason))?),
    }
    Ok(())
}

fn is_change(name: &str) -> bool {
    const ALL: [&str; 11] = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    ALL.contains(&name)
}

/// A JSON array of strings; anything else is taken as words.
fn array(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The exec form, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    array(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `A=b C="d e"`, or the old form `A b` with one pair.
fn pairs(text: &str) -> Said<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first().is_some_and(|first| first.contains('=')) {
        let (key, value) = text.split_once(char::is_whitespace).ok_or("a name and a value are needed")?;
        return Ok(vec![(unquoted(key), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err("the name is empty".to_owned()),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                Err(format!("syntax error - can't find = in \"{word}\"; must be of the form: name=value"))
            }
        })
        .collect()
}

/// Words at white space; quotes and backslashes keep it, as in a Dockerfile.
fn words(text: &str) -> Said<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        '"' => break,
                        '\\' => match chars.next().ok_or("a quote is not closed")? {
                            c @ ('"' | '\\' | '$') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Text without the quotes around it.
fn unquoted(text: &str) -> String {
    match words(text) {
        Ok(words) if words.len() == 1 => words.into_iter().next().unwrap_or_default(),
        _ => text.to_owned(),
    }
}

/// `80`, `80/udp`, `8000-8002/tcp`.
fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A relative folder continues the one before.
fn joined(before: &str, folder: &str) -> String {
    let whole = if folder.starts_with('/') { folder.to_owned() } else { format!("{before}/{folder}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `NONE`, or `[--interval=30s …] CMD …`.
fn health_check(text: &str) -> Said<serde_json::Value> {
    let mut check = serde_json::Map::new();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').ok_or_else(|| format!("flag --{flag} has no value"))?;
        let field = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            other => return Err(format!("unknown flag: {other}")),
        };
        let number = match field {
            "Retries" => value.parse().ok().filter(|n| *n >= 0),
            _ => nanoseconds(value),
        };
        check.insert(field.to_owned(), number.ok_or_else(|| format!("invalid value for --{name}"))?.into());
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match (kind.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") if check.is_empty() => json!(["NONE"]),
        ("CMD", "") => return Err("missing command after HEALTHCHECK CMD".to_owned()),
        ("CMD", command) => match array(command) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect::<Vec<_>>().into(),
            None => json!(["CMD-SHELL", command]),
        },
        _ => return Err("expected NONE or CMD".to_owned()),
    };
    check.insert("Test".to_owned(), test);
    Ok(check.into())
}

/// Go's durations: `1m30s`, `500ms`, `0`.
fn nanoseconds(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        sum += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    // Beyond this a duration of Go overflows.
    #[expect(clippy::cast_possible_truncation, reason = "within the range")]
    (!text.is_empty() && sum < 9.2e18).then_some(sum as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        for instruction in instructions {
            apply(&mut config, instruction).unwrap_or_else(|error| panic!("{instruction}: {error}"));
        }
        config
    }

    #[test]
    fn instructions_change_settings_as_docker_s_do() {
        let config = changed(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint exec top -b",
            r#"ENV A=1 B="two words" C='$x' D=a\ b"#,
            "ENV A 2 and more",
            "LABEL x=y z=",
            "EXPOSE 80 53/udp 8000-8002",
            "USER app:app",
            r#"VOLUME ["/a", "/b"]"#,
            "VOLUME /c /d",
            "WORKDIR /srv",
            "WORKDIR www/../app",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN make",
            r#"HEALTHCHECK --interval=1m30s --retries=3 CMD ["curl", "localhost"]"#,
        ]);
        assert_eq!(config.cmd, ["a", "b c"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "exec top -b"]);
        assert_eq!(config.env, ["A=2 and more", "B=two words", "C=$x", "D=a b"]);
        assert_eq!(config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["x=y", "z="]);
        let ports: Vec<_> = config.exposed_ports.keys().cloned().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(config.volumes.keys().cloned().collect::<Vec<_>>(), ["/a", "/b", "/c", "/d"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app:app", "/srv/app"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(config.on_build, ["RUN make"]);
        assert_eq!(
            config.healthcheck,
            Some(
                json!({ "Interval": 90_000_000_000i64, "Retries": 3, "Test": ["CMD", "curl", "localhost"] })
            )
        );
        assert_eq!(changed(&["HEALTHCHECK NONE"]).healthcheck, Some(json!({ "Test": ["NONE"] })));
        assert_eq!(
            changed(&["HEALTHCHECK CMD a b"]).healthcheck,
            Some(json!({ "Test": ["CMD-SHELL", "a b"] }))
        );
    }

    /// Any instruction with any rest: applied or refused with a reason, and a refusal changes nothing but what came
    /// before it. What is applied is a configuration that can be written and read again.
    #[test]
    fn no_instruction_does_harm() {
        const NAMES: [&str; 12] = [
            "CMD",
            "entrypoint",
            "ENV",
            "EXPOSE",
            "HEALTHCHECK",
            "LABEL",
            "ONBUILD",
            "STOPSIGNAL",
            "USER",
            "VOLUME",
            "WORKDIR",
            "RUN",
        ];
        const PARTS: [&str; 30] = [
            " ",
            "\t",
            "\n",
            "=",
            "\"",
            "'",
            "\\",
            "[",
            "]",
            ",",
            "[\"a\"]",
            "a",
            "A=b",
            "$x",
            "80",
            "1-65535",
            "65536",
            "99999999999999999999",
            "/",
            "..",
            "/tcp",
            "/udp",
            "-",
            "--interval=",
            "--retries=",
            "1h",
            "9e9s",
            "NONE",
            "CMD",
            "\u{1f6a2}\0",
        ];
        let mut state = 7_u64;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or_default() % bound
        };
        let mut applied = 0;
        for _ in 0..20_000 {
            let rest: String = (0..below(7)).map(|_| PARTS[below(PARTS.len())]).collect();
            let instruction = format!("{} {rest}", NAMES[below(NAMES.len())]);
            let mut config = RunConfig::default();
            match apply(&mut config, &instruction) {
                Ok(()) => {
                    applied += 1;
                    let written =
                        serde_json::to_string(&config).unwrap_or_else(|e| panic!("{instruction:?}: {e}"));
                    let read: RunConfig = serde_json::from_str(&written)
                        .unwrap_or_else(|e| panic!("{instruction:?}: {written}: {e}"));
                    assert_eq!(read, config, "{instruction:?}");
                    assert!(config.exposed_ports.len() <= 65_536, "{instruction:?}");
                    assert!(
                        config.working_dir.is_empty() || config.working_dir.starts_with('/'),
                        "{instruction:?}"
                    );
                }
                Err(error) => assert!(!error.to_string().is_empty(), "{instruction:?}"),
            }
        }
        assert!(applied > 1000, "{applied} applied");
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for (instruction, message) in [
            ("RUN x", "run is not a valid change command"),
            ("FROM y", "from is not a valid change command"),
            ("", "is not a valid change command"),
            ("CMD", "CMD requires at least one argument"),
            ("ENV A", "a name and a value are needed"),
            ("ENV A=1 B", "can't find ="),
            ("ENV =x", "the name is empty"),
            ("ENV A=\"x", "a quote is not closed"),
            ("EXPOSE 99999", "invalid containerPort"),
            ("EXPOSE 9-8", "invalid containerPort"),
            ("EXPOSE 1/icmp", "invalid containerPort"),
            ("ONBUILD FROM x", "isn't allowed"),
            ("HEALTHCHECK maybe", "expected NONE or CMD"),
            ("HEALTHCHECK --interval=ten CMD x", "invalid value for --interval"),
            ("HEALTHCHECK --colour=red CMD x", "unknown flag"),
            ("HEALTHCHECK CMD", "missing command"),
        ] {
            let error = apply(&mut RunConfig::default(), instruction).map(|()| panic!("{instruction}"));
            assert!(
                error.as_ref().is_err_and(|e| e.to_string().contains(message)),
                "{instruction}: {error:?}"
            );
        }
    }

    #[test]
    fn durations_are_go_s() {
        for (text, nanos) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("1.5s", 1_500_000_000),
            ("1h1m", 3_660_000_000_000),
            ("5ms", 5_000_000),
        ] {
            assert_eq!(nanoseconds(text), Some(nanos), "{text}");
        }
        for text in ["", "1", "s", "1x", "1s1", "-1s", "1e99h"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }
}
