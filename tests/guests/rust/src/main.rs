//! A guest in Rust with its standard library: arguments, environment, files, collections, time, exit code.
//!
//! Prints a line for each, then ends with the code that `EXIT` names (0 without it).

use std::collections::BTreeMap;
use std::time::Instant;

fn main() {
    let started = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("hello from Rust: {}", arguments.join(" "));

    let mut letters = BTreeMap::new();
    for letter in arguments.iter().flat_map(|argument| argument.chars()) {
        *letters.entry(letter).or_insert(0) += 1;
    }
    println!("letters: {letters:?}");

    if let Ok(path) = std::env::var("FILE") {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| format!("{path}: {error}"));
        println!("file: {}", text.trim_end());
    }
    assert!(started.elapsed().as_secs() < 60, "the clock runs");
    let code = std::env::var("EXIT").ok().and_then(|code| code.parse().ok()).unwrap_or(0);
    std::process::exit(code);
}
