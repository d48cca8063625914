//! Pulls an image and says where its files are: `cargo run -p dhow-images --example pull STORE NAME`.
//!
//! What is in the store already is not fetched again, whoever fetched it, and a pull that is killed goes on where it
//! stopped.
#![expect(clippy::print_stdout, reason = "an example's output")]

use dhow_images::{Event, Matcher, Progress, Reference, Result, State, Store, registry};

/// Progress is an event for each step; this one shows what is left of them.
struct Finished;

impl Progress for Finished {
    fn event(&self, event: &Event<'_>) {
        if let Event::Blob { digest, state: State::Complete | State::Exists, .. } = event {
            println!("{} is here", digest.short());
        }
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name] = &args[..] else {
        println!("usage: pull STORE NAME");
        return Ok(());
    };
    let store = Store::open(folder)?;
    let name: Reference = name.parse()?;
    let pulled = registry::pull(&store, &name, &registry::PullOptions::default(), &Finished)?;
    println!("{name} is {}", pulled.descriptor.digest);

    // The variant that this host runs: a Wasm one, if there is one.
    let image = store.image(&pulled.descriptor, &Matcher::host())?;
    match image.wasm.first() {
        Some(module) => println!("{}: {}", image.platform, store.blob_path(&module.digest).display()),
        None => {
            for layer in store.unpack(&image, &Finished)? {
                println!("{}: {}", image.platform, layer.path.display());
            }
        }
    }
    Ok(())
}
