//! Turns WebAssembly text into binaries: `composition-parts FOLDER FILE.wat...` writes FOLDER/FILE.wasm.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().context("a folder is missing")?;
    for text in arguments {
        let name = text.file_stem().context("a file has a name")?;
        fs_err::write(folder.join(name).with_extension("wasm"), wat::parse_file(&text)?)?;
    }
    Ok(())
}
