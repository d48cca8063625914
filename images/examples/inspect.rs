//! Shows what images of a store consist of: `cargo run -p dhow-images --example inspect STORE [NAME]`.
#![expect(clippy::print_stdout, reason = "an example's output")]

use dhow_images::{Descriptor, Matcher, Result, Store};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else {
        println!("usage: inspect STORE [NAME]");
        return Ok(());
    };
    let store = Store::open(folder)?;
    match args.next() {
        Some(name) => show(&store, &name, &store.find(&name)?),
        None => {
            store.references()?.iter().try_for_each(|(name, image)| show(&store, &name.familiar(), image))
        }
    }
}

fn show(store: &Store, name: &str, image: &Descriptor) -> Result<()> {
    println!("{name}  {}  {}", image.digest, image.media_type);
    for variant in store.variants(image)? {
        if !variant.present {
            println!("  {}  not fetched", variant.platform);
            continue;
        }
        let found = store.image(&variant.manifest, &Matcher::only(&variant.platform))?;
        let config = &found.config.config;
        println!("  {}  entrypoint {:?} command {:?}", variant.platform, config.entrypoint, config.cmd);
        for blob in found.layers.iter().chain(&found.wasm) {
            println!("    {}  {} bytes  {}", blob.digest.short(), blob.size, blob.media_type);
        }
    }
    Ok(())
}
