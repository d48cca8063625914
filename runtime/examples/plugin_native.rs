//! A native plugin: a Linux program that answers calls at the socket which Dhow names in `DHOW_PLUGIN`, in frames of four
//! bytes of length and JSON. It needs nothing of Dhow: this is all there is to it, in any language.
//!
//! Its image is `FROM scratch`, this program, and `ENTRYPOINT`; `dhow plugin call IMAGE greet '{"name": "Ada"}'` calls it.

#[cfg(unix)]
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "it has nothing of Dhow's")]
fn main() -> std::io::Result<()> {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use serde_json::{Value, json};

    let path =
        std::env::var_os("DHOW_PLUGIN").ok_or_else(|| std::io::Error::other("run by `dhow plugin`"))?;
    let mut stream = UnixStream::connect(path)?;
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).is_err() {
            // Nobody calls any more.
            return Ok(());
        }
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut text)?;
        let question: Value = serde_json::from_slice(&text)?;
        let (id, args) = (&question["id"], &question["args"]);
        let failed = |kind: &str, message: &str| json!({ "id": id, "error": { "kind": kind, "message": message, "value": message } });
        let answer = match (question["call"].as_str(), question["ask"].as_str()) {
            (Some("add"), _) => match (args[0].as_u64(), args[1].as_u64()) {
                (Some(a), Some(b)) => json!({ "id": id, "ok": a + b }),
                _ => failed("incompatible", "add: expected func(u32, u32) -> u32"),
            },
            (Some("greet"), _) => match args[0]["name"].as_str() {
                Some("") => failed("guest", "nobody is there"),
                Some(name) => json!({ "id": id, "ok": format!("Hello, {name}!") }),
                None => failed("incompatible", "greet: expected func(record {name: string}) -> string"),
            },
            (Some("sleep"), _) => {
                // One call at a time: it hears of no end before its own.
                std::thread::sleep(std::time::Duration::from_secs(60));
                json!({ "id": id, "ok": null })
            }
            (Some("look"), _) => {
                // What there is of the host: nothing that was not granted.
                let seen = std::fs::read_dir("/sys/class/net").map_or(0, |all| all.count());
                let writes = |path: &str| std::fs::write(path, "x").is_ok();
                let mode = std::env::var("MODE").ok();
                json!({ "id": id, "ok": {
                    "interfaces": seen, "writes": writes("/x"), "mode": mode,
                    "words": std::fs::read_to_string("/data/words").ok(), "writes-data": writes("/data/new"),
                    "pid": std::process::id(),
                } })
            }
            // What a bad one may do: no answer of its type, and no answer at all.
            (Some("lie"), _) => json!({ "id": id, "ok": "text" }),
            (Some("crash"), _) => {
                eprintln!("about to crash");
                std::process::abort()
            }
            (Some(_), _) => failed("no-function", "there are add, greet, sleep, look, lie, crash"),
            // As `dhow plugin inspect` shows them: WIT, with what has a name there written in place.
            (None, Some("functions")) => json!({ "id": id, "ok": [
                { "name": "add", "type": "func(a: u32, b: u32) -> u32" },
                { "name": "greet", "type": "func(who: record {name: string}) -> result<string, string>" },
                { "name": "sleep", "type": "func()" },
                { "name": "look", "type": "func() -> record {interfaces: u32, writes: bool, mode: option<string>, \
                    words: option<string>, writes-data: bool, pid: u32}" },
                { "name": "lie", "type": "func() -> u32" },
                { "name": "crash", "type": "func()" },
            ]}),
            // A call that was given up, which has been answered by now.
            _ => continue,
        };
        let text = answer.to_string();
        let length = u32::try_from(text.len()).map_err(std::io::Error::other)?;
        stream.write_all(&length.to_le_bytes())?;
        stream.write_all(text.as_bytes())?;
    }
}

#[cfg(not(unix))]
fn main() {}
