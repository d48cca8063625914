//! The program that is the first process of containers with `--init`.
//!
//! ```text
//! <root>/init/<key>     a copy of the program, for each version of it
//! ```
//! A copy, because a container must never run, nor hold, the very file that the host runs; it is made once.

use std::path::PathBuf;

use fs_err as fs;

use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};

impl Engine {
    /// Where it is.
    pub(crate) fn init_program(&self) -> Result<PathBuf> {
        let Some(program) = self.init else {
            return Err(Error::NotYet {
                what: "--init in this program".to_owned(),
                hint: "the program that embeds the engine has to bring one".to_owned(),
            });
        };
        let program = program()?;
        let found = fs::metadata(&program)?;
        let changed = found.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let folder = self.root().join("init");
        let copy = folder.join(format!("{:x}-{changed:x}", found.len()));
        if copy.exists() {
            return Ok(copy);
        }
        make_folder(&folder)?;
        #[cfg(unix)]
        // Any user of a container runs it.
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        // Those of other versions; who runs one goes on with it.
        for old in fs::read_dir(&folder)?.flatten() {
            fs::remove_file(old.path()).ok();
        }
        let draft = folder.join(format!(".{}", std::process::id()));
        fs::copy(&program, &draft)?;
        #[cfg(unix)]
        fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o555))?;
        fs::rename(&draft, &copy)?;
        Ok(copy)
    }
}
