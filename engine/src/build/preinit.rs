//! `--preinit`: the program of a Wasm variant as it is after its own initialisation.
//!
//! The initialisation is anybody's code, and what compiles and rewrites it trusts it more than we do: it has a process of
//! its own, where there are such.

use std::rc::Rc;

use dhow_runtime::wasm::preinit;

use super::Event;
use super::builder::{Builder, failed};
use super::finish::program;
use super::layer::{Content, Layer, Made, Print};
use super::stage::Stage;
use super::work::Work;
use crate::error::Result;

impl Builder<'_, '_> {
    /// Puts the initialised program over the one that is there, as a layer with a step of its own.
    pub(super) fn preinit(&mut self, stage: &mut Stage, function: &str) -> Result<()> {
        let program = program(self, stage)?;
        let text = format!("PREINIT {function} {}", program.name);
        let begun = self.begin("preinit", &text);
        let history = self.history(stage, text.clone());
        let mut key = Print::new("preinit");
        key.text(stage.chain().to_string().as_bytes());
        for part in [&program.path[..], &program.code, function.as_bytes()] {
            key.text(part);
        }
        let key = key.finish();
        if let Some(cached) = self.look_up(&key)? {
            Self::take(stage, cached.layer, history);
        } else {
            let made = initialised(&self.work, &program.name, &program.code, function)
                .map_err(|error| failed(error, None))?;
            let view = stage.view(self.engine, &self.work)?;
            let mut entry = program.found.entry(&program.path);
            (entry.size, entry.mtime) = (made.len() as u64, (self.now.as_second(), 0));
            let mut layer = Layer::new(Made { owner: (0, 0), mtime: entry.mtime });
            layer.put(&view, entry, Content::Bytes(Rc::from(made)))?;
            self.add(stage, &layer, (&key, &text), history)?;
        }
        (self.progress)(Event::Done(begun.elapsed()));
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
fn initialised(_: &Work<'_>, name: &str, code: &[u8], function: &str) -> Result<Vec<u8>> {
    Ok(preinit(name, code, function)?)
}

#[cfg(target_os = "linux")]
fn initialised(work: &Work<'_>, name: &str, code: &[u8], function: &str) -> Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};

    use crate::error::Error;
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    let (mut made, mut words) = (work.spool()?, work.spool()?);
    let builder = getpid();
    let child = dhow_runtime::process::fork(|| {
        set_parent_process_death_signal(Some(Signal::KILL)).ok();
        if getppid() != Some(builder) {
            return 1;
        }
        let written = match preinit(name, code, function) {
            Ok(bytes) => made.write_all(&bytes).map(|()| 0),
            Err(error) => words.write_all(error.to_string().as_bytes()).map(|()| 1),
        };
        written.unwrap_or(2)
    })?;
    let code = child.wait()?.code();
    let read = |file: std::fs::File| -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        super::root::Part::new(&Rc::new(file), 0).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if code == 0 {
        return Ok(read(made)?);
    }
    let words = String::from_utf8_lossy(&read(words)?).into_owned();
    Err(Error::Invalid(if words.is_empty() {
        format!("{name}: the process of its initialisation ended with code {code}")
    } else {
        words
    }))
}
