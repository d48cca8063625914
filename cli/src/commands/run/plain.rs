//! `run` lines of nothing but frequent options, read without clap: to describe every option of the command to it takes
//! as long as to run a small Wasm program. Not a second grammar: whatever is not certain to mean here what it means
//! there (`None`) is left to clap, which is also the one that finds mistakes and has words for them.

use std::ffi::OsString;

use super::{RunArgs, RunCommand};
use crate::client::ClientArgs;

/// Reads what follows `run`.
pub(crate) fn read(mut words: impl Iterator<Item = OsString>) -> Option<RunCommand> {
    let mut command = RunCommand { detach: false, client: ClientArgs::usual(), args: RunArgs::default() };
    loop {
        let word = words.next()?.into_string().ok()?;
        if !word.starts_with('-') {
            // From the image on everything is the program's, whatever it looks like.
            command.args.words.push(word);
            break;
        }
        match switch(&mut command, &word) {
            // Of what is given twice the last counts: clap's affair.
            Some(true) => return None,
            Some(on) => *on = true,
            None => valued(&mut command.args, &word, &mut words)?,
        }
    }
    for word in words {
        command.args.words.push(word.into_string().ok()?);
    }
    // Nor is it obvious what an empty word or `--` is.
    let certain = |word: &String| !word.is_empty() && word != "--";
    command.args.words.iter().all(certain).then_some(command)
}

/// The switch that a word names.
fn switch<'a>(command: &'a mut RunCommand, word: &str) -> Option<&'a mut bool> {
    let args = &mut command.args;
    Some(match word {
        "-d" | "--detach" => &mut command.detach,
        "--rm" => &mut args.rm,
        "-i" | "--interactive" => &mut args.interactive,
        "-t" | "--tty" => &mut args.tty,
        "-q" | "--quiet" => &mut args.quiet,
        "--read-only" => &mut args.read_only,
        _ => return None,
    })
}

/// An option with a value, after `=` or as the next word.
fn valued(args: &mut RunArgs, word: &str, words: &mut impl Iterator<Item = OsString>) -> Option<()> {
    let (name, attached) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    let (one, many) = match name {
        "--name" => (Some(&mut args.name), None),
        "--entrypoint" => (Some(&mut args.entrypoint), None),
        "--invoke" => (Some(&mut args.invoke), None),
        "--workdir" => (Some(&mut args.workdir), None),
        "--env" => (None, Some(&mut args.env)),
        "--volume" => (None, Some(&mut args.volume)),
        "--publish" => (None, Some(&mut args.publish)),
        "--network" | "--net" => (None, Some(&mut args.network)),
        // `-e=K` is K to clap; it may go on thinking so.
        "-e" if attached.is_none() => (None, Some(&mut args.env)),
        "-v" if attached.is_none() => (None, Some(&mut args.volume)),
        "-p" if attached.is_none() => (None, Some(&mut args.publish)),
        "-w" if attached.is_none() => (Some(&mut args.workdir), None),
        _ => return None,
    };
    let value = match attached {
        Some(value) => value,
        None => words.next()?.into_string().ok()?,
    };
    if value.is_empty() || value.starts_with('-') {
        return None;
    }
    match (one, many) {
        (Some(Some(_)), _) => return None,
        (Some(one), _) => *one = Some(value),
        (None, Some(many)) => many.push(value),
        (None, None) => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clap makes of the same line, as text; `None` when it refuses.
    fn by_clap(line: &[&str]) -> Option<String> {
        crate::args::parse_run(line.iter().copied()).map(|command| format!("{command:?}"))
    }

    fn read_line(line: &[&str]) -> Option<String> {
        read(line.iter().map(OsString::from)).map(|command| format!("{command:?}"))
    }

    #[test]
    fn reads_frequent_lines() {
        for line in [
            &["hello:1"][..],
            &["--rm", "hello:1", "a", "--rm", "-x"],
            &["-d", "--name", "web", "-p", "8080:80", "-p", "1:1", "app"],
            &[
                "--rm",
                "-i",
                "-t",
                "--entrypoint=sh",
                "-e",
                "K=V",
                "-e",
                "HOME",
                "--env=A=B",
                "app",
                "-c",
                "x",
            ],
            &["-q", "--read-only", "-v", "/a:/b", "--volume=/c:/d", "-w", "/w", "--net", "none", "app"],
            &["--rm", "--invoke", "add", "./m.wasm", "-2", "3"],
        ] {
            assert_eq!(read_line(line), by_clap(line), "{line:?}");
            assert!(read_line(line).is_some(), "{line:?}");
        }
    }

    #[test]
    fn leaves_the_rest_to_clap() {
        for line in [
            &[][..],
            &["--rm"],
            &["--rm", "--rm", "app"],
            &["--rm=true", "app"],
            &["-it", "app"],
            &["-eK=V", "app"],
            &["-e=K", "app"],
            &["-e", "-x", "app"],
            &["--name", "a", "--name", "b", "app"],
            &["--name=", "app"],
            &["--name"],
            &["--memory", "1g", "app"],
            &["--", "app"],
            &["app", "--", "x"],
            &["app", ""],
            &["--help"],
            &["--nope", "app"],
            &["-", "app"],
        ] {
            assert_eq!(read_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn never_means_anything_else() {
        // Every line of up to four of these words.
        let words = [
            "--rm",
            "-i",
            "--name",
            "--name=n",
            "-e",
            "--env=K=V",
            "K=V",
            "-p",
            "80",
            "app",
            "-x",
            "--",
            "-d=1",
        ];
        let mut line = Vec::new();
        for number in 0..words.len().pow(4) {
            line.clear();
            let mut rest = number;
            for _ in 0..4 {
                line.push(words[rest % words.len()]);
                rest /= words.len();
            }
            // Clap is slow in debug builds.
            if let Some(read) = read_line(&line).filter(|_| number % 7 == 0) {
                assert_eq!(Some(read), by_clap(&line), "{line:?}");
            }
        }
    }
}
