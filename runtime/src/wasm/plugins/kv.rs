//! What a plugin remembers beyond its instances: keys and values with a limit, kept by the host (`wit/kv.wit`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::wasm::p2::State;

/// The interface that plugins import.
pub(super) const INTERFACE: &str = "dhow:plugin/kv@0.1.0";
/// What an entry costs besides its bytes, so that a million empty ones are counted, too.
const ENTRY: usize = 64;

/// The entries of one plugin. The host may look and write, too.
#[derive(Debug)]
pub struct Kv {
    limit: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    used: usize,
    map: HashMap<String, Vec<u8>>,
}

impl Kv {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries().map.get(key).cloned()
    }

    /// Sets it; `false` when there is no room for it, which changes nothing.
    pub fn set(&self, key: &str, value: &[u8]) -> bool {
        let mut entries = self.entries();
        let before = entries.map.get(key).map_or(0, |before| size(key, before));
        let used = (entries.used - before).saturating_add(size(key, value));
        if used > self.limit {
            return false;
        }
        entries.used = used;
        entries.map.insert(key.to_owned(), value.to_owned());
        true
    }

    /// Removes it; `false` when there was none.
    pub fn delete(&self, key: &str) -> bool {
        let mut entries = self.entries();
        let Some(value) = entries.map.remove(key) else { return false };
        entries.used -= size(key, &value);
        true
    }

    /// Bytes in use: keys, values, and something for each entry.
    pub fn used(&self) -> usize {
        self.entries().used
    }
}

fn size(key: &str, value: &[u8]) -> usize {
    key.len().saturating_add(value.len()).saturating_add(ENTRY)
}

/// Gives a component the interface.
pub(super) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let kv =
        |store: &mut StoreContextMut<'_, State>| -> Option<Arc<Kv>> { store.data_mut().inside().kv.clone() };
    let mut instance = linker.instance(INTERFACE)?;
    instance.func_wrap("get", move |mut store: StoreContextMut<'_, State>, (key,): (String,)| {
        Ok((kv(&mut store).and_then(|kv| kv.get(&key)),))
    })?;
    instance.func_wrap(
        "set",
        move |mut store: StoreContextMut<'_, State>, (key, value): (String, Vec<u8>)| {
            Ok((kv(&mut store).is_some_and(|kv| kv.set(&key, &value)),))
        },
    )?;
    instance.func_wrap("delete", move |mut store: StoreContextMut<'_, State>, (key,): (String,)| {
        Ok((kv(&mut store).is_some_and(|kv| kv.delete(&key)),))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_whatever_is_written_over() {
        let kv = Kv::new(2 * ENTRY + 12);
        assert!(kv.set("a", &[0; 5]) && kv.set("b", &[0; 5]));
        assert!(!kv.set("b", &[0; 6]), "one byte too many");
        assert_eq!(kv.get("b"), Some(vec![0; 5]), "and nothing has changed");
        assert!(kv.set("a", &[]) && kv.set("b", &[1; 10]));
        assert!(!kv.set("c", &[]), "empty entries cost, too");
        assert!(kv.delete("a") && !kv.delete("a") && kv.set("c", &[]));
        assert!(kv.delete("b") && kv.delete("c"));
        assert_eq!(kv.used(), 0);
    }
}
