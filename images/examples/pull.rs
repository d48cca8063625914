//! Pulls an image into a store and says what it got: `cargo run -p dhow-images --example pull -- STORE NAME`.

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use dhow_images::Matcher;
use dhow_images::NoProgress;
use dhow_images::Reference;
use dhow_images::Result;
use dhow_images::Store;
use dhow_images::registry;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(name)) = (arguments.next(), arguments.next()) else {
        println!("usage: pull STORE NAME");
        return Ok(());
    };
    let store = Store::open(root)?;
    let name = Reference::parse(&name)?;
    let pulled = registry::pull(&store, &name, &registry::PullOptions::default(), &NoProgress)?;
    println!("{} is {}", name.familiar(), pulled.descriptor.digest);
    for variant in store.variants(&pulled.descriptor)? {
        println!("  {}{}", variant.platform, if variant.present { "" } else { " (not fetched)" });
    }
    let image = store.image(&pulled.descriptor, &Matcher::host())?;
    for layer in store.unpack(&image, &NoProgress)? {
        println!("  {}", layer.path.display());
    }
    Ok(())
}
