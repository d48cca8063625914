//! Pushes an image of a store: `cargo run -p dhow-images --example push STORE NAME`.
//!
//! Bytes go as they are, so the digest at the registry is the one here; what the registry has is not sent.
#![expect(clippy::print_stdout, reason = "an example's output")]

use dhow_images::registry::{Access, Credentials, PushOptions, push};
use dhow_images::{Error, NoProgress, Reference, Result, Store};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name] = &args[..] else {
        println!("usage: push STORE NAME");
        return Ok(());
    };
    let store = Store::open(folder)?;
    let name: Reference = name.parse()?;
    let image = store.resolve(&name)?.ok_or(Error::NoSuchImage { name: name.familiar() })?;

    // The library reads no files and no environment for this: who the user is, the application says.
    let user = std::env::var("REGISTRY_USER").ok();
    let password = std::env::var("REGISTRY_PASSWORD").ok();
    let credentials = user.zip(password).map(|(user, password)| Credentials::Basic { user, password });
    let options =
        PushOptions { access: Access { credentials, ..Access::default() }, ..PushOptions::default() };
    let pushed = push(&store, &image, &name, &options, &NoProgress)?;
    println!("{name} is {} ({} bytes were sent)", pushed.descriptor.digest, pushed.sent);
    Ok(())
}
