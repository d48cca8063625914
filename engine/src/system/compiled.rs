//! The folder of compiled code: every file is whole, ours, and of something that is still there.

use std::io::ErrorKind;
use std::path::Path;

use dhow_images::Store;
use dhow_runtime::wasm::is_compiled_code;
use fs_err as fs;

use super::Problem;
use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Code is a cache: whatever is wrong with it, removing it puts it right.
    pub(super) fn check_compiled(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let folder = self.aot_folder();
        for group in entries(&folder)? {
            let path = folder.join(&group);
            if !path.is_dir() {
                remove(&path, format!("aot/{group}"), "does not belong here", repair, problems)?;
                continue;
            }
            for name in entries(&path)? {
                if let Some(what) = self.wrong_with_code(&path, &name) {
                    remove(&path.join(&name), format!("aot/{group}/{name}"), what, repair, problems)?;
                }
            }
        }
        Ok(())
    }

    fn wrong_with_code(&self, folder: &Path, name: &str) -> Option<&'static str> {
        let path = folder.join(name);
        // `NAME.lock` is held by whoever compiles `NAME`, and `NAME.PID.tmp` is what they write.
        let made = name
            .strip_suffix(".lock")
            .or_else(|| name.strip_suffix(".tmp")?.rsplit_once('.').map(|(n, _)| n));
        if let Some(made) = made {
            let is_free = || {
                let lock = fs::OpenOptions::new().append(true).open(folder.join(format!("{made}.lock")));
                lock.map_or_else(|e| e.kind() == ErrorKind::NotFound, |lock| lock.file().try_lock().is_ok())
            };
            // One that begins or ends in this moment has no lock, but soon no file either.
            let left = || path.exists() && is_free();
            return (left() && {
                std::thread::sleep(super::A_MOMENT);
                left()
            })
            .then_some("left by a process that ended early");
        }
        match Store::derived_from(name) {
            Some(source) if !self.store().has(&source) && path.exists() => {
                Some("code of something that is not in the store")
            }
            None if !name.starts_with("file-") && !name.starts_with("id-") => Some("does not belong here"),
            _ if !is_compiled_code(&path) && path.exists() => {
                Some("compiled code is not whole, or not ours alone")
            }
            _ => None,
        }
    }
}

/// Names in a folder; empty if it does not exist.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn remove(path: &Path, place: String, what: &str, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
    if repair {
        dhow_images::remove_tree(path)?;
    }
    problems.push(Problem::new(place, what.to_owned(), repair));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folders;

    #[test]
    fn what_is_no_code_of_ours_is_found() {
        let root = tempfile::tempdir().unwrap();
        let engine = Engine::open(Folders {
            root: root.path().to_owned(),
            run: None,
            layers: dhow_images::LayerForm::Files,
        })
        .unwrap();
        let group = engine.aot_folder().join("key");
        fs::create_dir_all(&group).unwrap();
        let hex = "ab".repeat(32);
        let names = [
            ("readme".to_owned(), "does not belong here"),
            (format!("file-{hex}"), "not whole"),
            (format!("file-{hex}.lock"), "ended early"),
            (format!("file-{hex}.12.tmp"), "ended early"),
            (format!("sha256-{hex}"), "not in the store"),
            (format!("sha256-{hex}.{hex}"), "not in the store"),
        ];
        for (name, _) in &names {
            fs::write(group.join(name), "x").unwrap();
        }
        fs::write(engine.aot_folder().join("odd"), "x").unwrap();
        let found = engine.check(false).unwrap();
        assert_eq!(found.len(), names.len() + 1, "{found:#?}");
        for (name, what) in &names {
            let place = format!("aot/key/{name}");
            assert!(found.iter().any(|p| p.place == place && p.what.contains(what)), "{name}: {found:#?}");
        }
        engine.check(true).unwrap();
        assert_eq!(engine.check(false).unwrap(), []);
    }
}
