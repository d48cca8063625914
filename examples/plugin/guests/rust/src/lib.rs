//! A plugin in Rust, of the world in plugin.wit. `tests/guests/plugin-rust OUT` builds it with Debian's compiler; with rustup's `wasm32-wasip2`
//! target `cargo build --release --target wasm32-wasip2` is all.

wit_bindgen::generate!({ world: "plugin", path: "../plugin.wit" });

struct Plugin;

impl Guest for Plugin {
    fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }

    fn greet(name: String) -> Result<String, String> {
        if name.is_empty() {
            return Err("no name".to_owned());
        }
        Ok(format!("Hello, {name}!"))
    }
}

export!(Plugin);
