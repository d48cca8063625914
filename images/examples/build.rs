//! Builds a layer, two images and an index over them: `cargo run -p dhow-images --example build STORE NAME`.
//!
//! Nothing is run and no tool is needed, and the same input gives the same digests on every machine.
#![expect(clippy::print_stdout, reason = "an example's output")]

use dhow_images::compose::{ImageBuilder, LayerBuilder, wasm_artifact};
use dhow_images::{IndexBuilder, Platform, Reference, Result, Store};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name] = &args[..] else {
        println!("usage: build STORE NAME");
        return Ok(());
    };
    let store = Store::open(folder)?;
    let name: Reference = name.parse()?;

    // A layer is files; what lies in a lower layer can be taken away again.
    let mut layer = LayerBuilder::new();
    layer.file("bin/hello", 0o755, "#!/bin/sh\necho hello\n").dir("tmp", 0o1777).whiteout("etc/motd");
    let mut native = ImageBuilder::new(&Platform::new("linux", "amd64", None));
    native.layer(layer).config().cmd = vec!["/bin/hello".into()];
    let native = native.build(&store)?;

    // A Wasm module alone is an image too; this one is the smallest there is.
    let wasm = wasm_artifact(&store, "wasip1", b"\0asm\x01\0\0\0")?;

    let mut index = IndexBuilder::new();
    index.add(wasm).add(native).annotation("org.opencontainers.image.title", "hello");
    let image = index.build(&store)?;
    store.tag(&name, &image)?;
    println!("{name} is {}", image.digest);
    Ok(())
}
