//! One instruction: what it makes of a stage.

use std::rc::Rc;

use dhow_images::History;
use dhow_images::media::Compression;

use super::Event;
use super::builder::Builder;
use super::cache::{Cached, Made};
use super::copy::{self, How, Source, Target};
use super::dockerfile::{Command, Copy, CopySource, Instruction, Run, Step, expand};
use super::git::Remote;
use super::ignore::Ignore;
use super::layer::{Content, Layer, Made as MadeDir, Print};
use super::mode::Mode;
use super::run::{self, Job};
use super::settings;
use super::stage::{Own, Stage};
use super::{Failure, is_proxy, mounts};
use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::image::change;
use crate::user;

/// The most of `/etc/passwd` or `/etc/group` that is read.
const MAX_PASSWD: u64 = 1 << 20;
/// Largest file that `ADD` downloads.
const MAX_DOWNLOAD: u64 = 16 << 30;

impl Builder<'_, '_> {
    pub(super) fn perform(&mut self, stage: &mut Stage, step: &Step, at: usize) -> Result<()> {
        let escape = stage.escape;
        let word = |stage: &Stage, text: &str| -> Result<String> {
            expand::word(text, escape, &|name: &str| stage.variable(name)).map_err(Error::Invalid)
        };
        match &step.instruction {
            Instruction::Arg(args) => self.arg(stage, args)?,
            Instruction::Env(pairs) => {
                // All of them see what was before this instruction.
                let before = stage.clone();
                let mut shown = Vec::new();
                for (name, value) in pairs {
                    let (name, value) = (word(&before, name)?, word(&before, value)?);
                    settings::set_env(&mut stage.config.config, &name, &value);
                    few(stage.config.config.env.len())?;
                    shown.push(format!("{name}={value}"));
                }
                self.note(stage, format!("ENV {}", shown.join(" ")));
            }
            Instruction::Label(pairs) => {
                let mut shown = Vec::new();
                for (name, value) in pairs {
                    let (name, value) = (word(stage, name)?, word(stage, value)?);
                    shown.push(format!("{name}={value}"));
                    stage.config.config.labels.insert(name, value);
                }
                self.note(stage, format!("LABEL {}", shown.join(" ")));
            }
            Instruction::Cmd(command) => {
                stage.config.config.cmd = settings::list(command, &stage.shell());
                stage.has_cmd = true;
                let shown = settings::shown("CMD", &stage.config.config.cmd);
                self.note(stage, shown);
            }
            Instruction::Entrypoint(command) => {
                stage.config.config.entrypoint = settings::list(command, &stage.shell());
                if !stage.has_cmd {
                    stage.config.config.cmd.clear();
                }
                let shown = settings::shown("ENTRYPOINT", &stage.config.config.entrypoint);
                self.note(stage, shown);
            }
            Instruction::Shell(words) => {
                stage.config.config.shell.clone_from(words);
                self.note(stage, format!("SHELL [{}]", words.join(" ")));
            }
            Instruction::User(text) => {
                let text = word(stage, text)?;
                stage.config.config.user.clone_from(&text);
                self.note(stage, format!("USER {text}"));
            }
            Instruction::Expose(words) => {
                for text in words {
                    let scope = |name: &str| stage.variable(name);
                    for port in expand::words(text, escape, &scope).map_err(Error::Invalid)? {
                        change::apply(&mut stage.config.config, &format!("EXPOSE {port}"))?;
                    }
                }
                let ports: Vec<String> =
                    stage.config.config.exposed_ports.keys().map(|port| format!("{port}:{{}}")).collect();
                self.note(stage, format!("EXPOSE map[{}]", ports.join(" ")));
            }
            Instruction::Volume(words) => {
                let mut all = Vec::new();
                for text in words {
                    let place = word(stage, text)?;
                    if place.is_empty() {
                        return Err(Error::Invalid("VOLUME specified can not be an empty string".to_owned()));
                    }
                    stage.config.config.volumes.insert(place.clone(), dhow_images::Empty {});
                    all.push(place);
                }
                self.note(stage, format!("VOLUME [{}]", all.join(" ")));
            }
            Instruction::StopSignal(text) => {
                let text = word(stage, text)?;
                if text.parse::<dhow_runtime::Signal>().is_err() {
                    return Err(Error::Invalid(format!("invalid signal: {text}")));
                }
                stage.config.config.stop_signal = Some(text.clone());
                self.note(stage, format!("STOPSIGNAL {text}"));
            }
            Instruction::Healthcheck(text) => {
                change::apply(&mut stage.config.config, &format!("HEALTHCHECK {text}"))?;
                self.note(stage, format!("HEALTHCHECK {text}"));
            }
            Instruction::Onbuild(text) => {
                stage.config.config.on_build.push(text.clone());
                self.note(stage, format!("ONBUILD {text}"));
            }
            Instruction::Maintainer(text) => {
                stage.config.author = Some(text.clone());
                self.note(stage, format!("MAINTAINER {text}"));
            }
            Instruction::Workdir(text) => {
                let text = word(stage, text)?;
                self.workdir(stage, &text)?;
            }
            Instruction::Copy(copy) => self.copy(stage, copy, &step.text, at)?,
            Instruction::Run(run) => self.run(stage, run, &step.text, at)?,
        }
        Ok(())
    }

    pub(super) fn history(&self, stage: &Stage, created_by: String) -> History {
        History {
            created: Some(self.now.to_string()),
            created_by: Some(created_by),
            author: stage.config.author.clone(),
            comment: Some("dhow.dockerfile".to_owned()),
            empty_layer: false,
        }
    }

    fn note(&self, stage: &mut Stage, created_by: String) {
        let history = self.history(stage, created_by);
        stage.note(history);
    }

    fn arg(&mut self, stage: &mut Stage, args: &[(String, Option<String>)]) -> Result<()> {
        let mut shown = Vec::new();
        for (name, default) in args {
            let scope = |name: &str| stage.variable(name);
            let name = expand::word(name, stage.escape, &scope).map_err(Error::Invalid)?;
            let default = default.as_deref().map(|text| expand::word(text, stage.escape, &scope)).transpose();
            let default = default.map_err(Error::Invalid)?;
            self.used_args.insert(name.clone());
            let given = self.build.build_args.get(&name).cloned();
            let value = given.or_else(|| default.clone()).or_else(|| self.globals.get(&name).cloned());
            shown.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            stage.args.push((name, value));
            few(stage.args.len())?;
        }
        self.note(stage, format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    /// What was made of this before, unless nothing is to be taken from there.
    pub(super) fn look_up(&mut self, key: &dhow_images::Digest) -> Result<Option<Cached>> {
        if self.fresh {
            return Ok(None);
        }
        let mut found = self.engine.cached(key);
        if found.is_none() {
            found = self.borrow(key)?;
        }
        if let Some(found) = &found {
            self.keys.insert(key.clone());
            if let Some(layer) = &found.layer {
                self.work.keep([&layer.blob.digest, &layer.diff_id])?;
                if !self.engine.store().has_blob(&layer.blob.digest) {
                    return Ok(None);
                }
            }
            (self.progress)(Event::Cached);
        }
        Ok(found)
    }

    /// Keeps what a step made for later builds.
    pub(super) fn remember(&mut self, key: &dhow_images::Digest, record: &Cached) -> Result<()> {
        self.keys.insert(key.clone());
        self.engine.remember_step(key, record)
    }

    /// Times of files become no later than this.
    fn latest(&self) -> Option<i64> {
        self.build.epoch.filter(|_| self.build.rewrite_times)
    }

    /// Makes a layer of entries, remembers and adds it; without entries there is none.
    pub(super) fn add(
        &mut self,
        stage: &mut Stage,
        layer: &Layer,
        (key, text): (&dhow_images::Digest, &str),
        history: History,
    ) -> Result<()> {
        let made = if layer.is_empty() {
            None
        } else {
            let latest = self.latest();
            let new = self.engine.store().new_layer(Compression::Gzip, |out| layer.write(out, latest))?;
            self.work.keep([&new.blob.digest, &new.diff_id])?;
            Some(Made { blob: new.blob, diff_id: new.diff_id })
        };
        self.remember(key, &Cached { layer: made.clone(), text: text.to_owned() })?;
        Self::take(stage, made, history);
        Ok(())
    }

    pub(super) fn take(stage: &mut Stage, made: Option<Made>, history: History) {
        match made {
            Some(made) => stage.add(Own { made, files: None }, history),
            None => stage.note(history),
        }
    }

    fn key(&self, kind: &str, stage: &Stage) -> Print {
        let mut print = Print::new(kind);
        print.text(stage.chain().to_string().as_bytes());
        if let Some(latest) = self.latest() {
            print.text(latest.to_string().as_bytes());
        }
        print
    }

    fn workdir(&mut self, stage: &mut Stage, text: &str) -> Result<()> {
        let path = settings::joined(&stage.config.config.working_dir, text);
        stage.config.config.working_dir.clone_from(&path);
        let history = self.history(stage, format!("WORKDIR {path}"));
        let mut key = self.key("workdir", stage);
        let user = stage.config.config.user.clone();
        key.text(path.as_bytes()).text(user.as_bytes());
        let key = key.finish();
        if let Some(cached) = self.look_up(&key)? {
            Self::take(stage, cached.layer, history);
            return Ok(());
        }
        let below = stage.view(self.engine, &self.work)?;
        // What is made belongs to whom it is made for, as with BuildKit.
        let owner = if user.is_empty() { (0, 0) } else { owner(&below, &user)? };
        let failed = |error| Error::Invalid(format!("cannot make {path}: {error}"));
        let resolved = below.resolve(path.as_bytes()).map_err(failed)?;
        let mut layer = Layer::new(MadeDir { owner, mtime: (self.now.as_second(), 0) });
        match resolved.found {
            Some(found) if found.kind == dhow_images::assemble::EntryKind::Dir => {}
            Some(_) => return Err(Error::Invalid(format!("{path}: is not a directory"))),
            None => {
                let made = layer.directory(&resolved.path);
                layer.put(&below, made, Content::None)?;
            }
        }
        self.add(stage, &layer, (&key, &format!("WORKDIR {path}")), history)
    }

    fn copy(&mut self, stage: &mut Stage, copy: &Copy, text: &str, at: usize) -> Result<()> {
        let escape = stage.escape;
        let scope_of = stage.clone();
        let scope = |name: &str| scope_of.variable(name);
        let word = |text: &str| expand::word(text, escape, &scope).map_err(Error::Invalid);
        let name = if copy.add { "ADD" } else { "COPY" };
        let target_text = settings::target(&stage.config.config.working_dir, &word(&copy.target)?);
        let chown = copy.chown.as_deref().map(word).transpose()?.filter(|text| !text.is_empty());
        let chmod = copy.chmod.as_deref().map(word).transpose()?.filter(|text| !text.is_empty());
        let mut how = How {
            mode: chmod.as_deref().map(Mode::parse).transpose().map_err(Error::Invalid)?,
            parents: copy.parents,
            unpack: copy.add && copy.unpack != Some(false),
            now: self.now.as_second(),
            ..How::default()
        };
        for pattern in &copy.exclude {
            how.exclude.add(&word(pattern)?).map_err(Error::Invalid)?;
        }
        let mut found: Vec<(copy::Sources, Source)> = Vec::new();
        let mut many = copy.sources.len() > 1;
        for source in &copy.sources {
            match source {
                CopySource::Heredoc(heredoc) => {
                    let content = if heredoc.expand {
                        expand::heredoc(&heredoc.content, escape, &scope).map_err(Error::Invalid)?
                    } else {
                        heredoc.content.clone()
                    };
                    let content = Rc::from(content.into_bytes().into_boxed_slice());
                    let source = Source::Text { name: heredoc.name.clone(), content };
                    let root = Rc::new(super::root::Root::open(&self.work.empty())?);
                    let nothing = Rc::new(Ignore::default());
                    found.push((copy::Sources { root, ignore: nothing, is_context: true }, source));
                }
                CopySource::Path(path) => {
                    let path = word(path)?;
                    let checksum = copy.checksum.as_deref().map(word).transpose()?;
                    if copy.add
                        && let Some(remote) = Remote::parse(&path).map_err(Error::Invalid)?
                    {
                        let sources = self.repository(&remote, copy.keep_git_dir, checksum.as_deref())?;
                        found.extend(sources.find("/", false)?.into_iter().map(|one| (sources.clone(), one)));
                        continue;
                    }
                    if copy.add && is_remote(&path) {
                        let source = self.download(&path, checksum.as_deref())?;
                        let root = Rc::new(super::root::Root::open(&self.work.empty())?);
                        let nothing = Rc::new(Ignore::default());
                        found.push((copy::Sources { root, ignore: nothing, is_context: true }, source));
                        continue;
                    }
                    let sources = self.sources(copy.from.as_deref(), at)?;
                    let all = sources.find(&path, copy.parents)?;
                    many |= all.len() > 1;
                    found.extend(all.into_iter().map(|source| (sources.clone(), source)));
                }
            }
        }
        if many && !target_text.ends_with('/') {
            return Err(Error::Invalid(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let mut key = if copy.link { Print::new("link") } else { self.key("copy", stage) };
        for text in [&target_text, chown.as_deref().unwrap_or(""), chmod.as_deref().unwrap_or("")] {
            key.text(text.as_bytes());
        }
        key.text(&[u8::from(how.unpack), u8::from(copy.parents)]);
        copy::print(&found, &how, &mut key)?;
        let key = key.finish();
        let history = self.history(stage, text.split_whitespace().collect::<Vec<_>>().join(" "));
        if let Some(cached) = self.look_up(&key)? {
            Self::take(stage, cached.layer, history);
            return Ok(());
        }
        let view = stage.view(self.engine, &self.work)?;
        how.owner = chown.as_deref().map(|text| owner(&view, text)).transpose()?;
        let below = if copy.link { Rc::new(super::root::Root::open(&self.work.empty())?) } else { view };
        let made = MadeDir { owner: how.owner.unwrap_or((0, 0)), mtime: (self.now.as_second(), 0) };
        let mut layer = Layer::new(made);
        let target = Target::find(&below, &target_text)?;
        let work = &mut self.work;
        copy::put(&found, &how, (&below, &target), &mut layer, &mut || work.spool())?;
        self.add(stage, &layer, (&key, text), history)
    }

    /// The files of a git repository. `checksum` is the beginning of its commit.
    fn repository(&mut self, remote: &Remote, keep: bool, checksum: Option<&str>) -> Result<copy::Sources> {
        let folder = self.work.path("git");
        let commit = self.helper.clone(remote, keep, &folder)?;
        if let Some(checksum) = checksum
            && (checksum.len() < 7 || !commit.starts_with(&checksum.to_ascii_lowercase()))
        {
            return Err(Error::Invalid(format!("expected checksum to match {checksum}, got {commit}")));
        }
        self.materials.insert((remote.address.clone(), "gitCommit".to_owned(), commit));
        let mut root = super::root::Root::open(&folder)?;
        if let Some(below) = &remote.folder {
            let found = root.resolve(below.as_bytes())?;
            if found.found.is_none_or(|found| found.kind != dhow_images::assemble::EntryKind::Dir) {
                return Err(Error::Invalid(format!("{}: has no directory {below}", remote.address)));
            }
            root = root.below(&found.path)?;
        }
        Ok(copy::Sources { root: Rc::new(root), ignore: Rc::new(Ignore::default()), is_context: true })
    }

    /// What is at an address, as a file of the last name of its path.
    fn download(&mut self, url: &str, checksum: Option<&str>) -> Result<Source> {
        let wanted = checksum.map(str::parse::<dhow_images::Digest>).transpose()?;
        let path = url.split("://").nth(1).unwrap_or(url).split(['?', '#']).next().unwrap_or(url);
        let name = path.split_once('/').map_or("", |(_, path)| path).rsplit('/').next().unwrap_or("");
        if matches!(name, "" | "." | "..") {
            return Err(Error::Invalid(format!("cannot determine filename for url: {url}")));
        }
        let mut file = self.work.spool()?;
        let mut body = std::io::Read::take(self.helper.download(url)?, MAX_DOWNLOAD + 1);
        let mut hasher = dhow_images::Hasher::new(dhow_images::Algorithm::Sha256);
        let (mut size, mut buffer) = (0_u64, vec![0; 128 << 10]);
        loop {
            let count = std::io::Read::read(&mut body, &mut buffer)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if size > MAX_DOWNLOAD {
                return Err(Error::Invalid(format!("{url}: is larger than {MAX_DOWNLOAD} bytes")));
            }
            hasher.update(&buffer[..count]);
            std::io::Write::write_all(&mut file, &buffer[..count])?;
        }
        let digest = hasher.finish();
        if let Some(wanted) = wanted
            && wanted != digest
        {
            return Err(Error::Invalid(format!("digest mismatch {digest}: {wanted}")));
        }
        self.materials.insert((url.to_owned(), "sha256".to_owned(), digest.hex().to_owned()));
        Ok(Source::Download { name: name.to_owned(), file: Rc::new(file), size })
    }

    fn run(&mut self, stage: &mut Stage, run: &Run, text: &str, at: usize) -> Result<()> {
        let insecure = run.security.as_deref() == Some("insecure");
        if insecure && !self.build.insecure {
            return Err(Error::Build(Box::new(Failure {
                message: "security.insecure is not allowed".to_owned(),
                hint: Some("allow all its steps what they ask for: `--allow security.insecure`".to_owned()),
                lines: None,
                word: Some("insecure".to_owned()),
                code: 1,
            })));
        }
        let args = command(run, &stage.shell());
        let mut env: Vec<String> = stage.config.config.env.clone();
        let visible = stage.visible_args();
        let has = |env: &[String], name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
        let known = self.build.build_args.iter().filter(|(name, _)| is_proxy(name));
        // Where a network is reached is no reason to do anything again, unless an `ARG` asks for it.
        let (times, proxies): (Vec<_>, Vec<_>) = known.partition(|(name, _)| *name == "SOURCE_DATE_EPOCH");
        for (name, value) in visible.iter().map(|(a, b)| (a, b)).chain(times) {
            if !has(&env, name) {
                env.push(format!("{name}={value}"));
            }
        }
        let mode = match run.network.as_deref() {
            None | Some("default") => self.build.network.as_str(),
            Some(network) => network,
        };
        let network = match mode {
            "" | "default" if stage.kind() == dhow_runtime::Kind::Wasm => "none".to_owned(),
            "" | "default" => match &self.build.default_network {
                Some(network) => network.clone(),
                None => crate::spec::default_network().to_owned(),
            },
            other => other.to_owned(),
        };
        let mut key = self.key("run", stage);
        for part in args.iter().chain(&[String::new()]).chain(&env).chain(&self.build.hosts) {
            key.text(part.as_bytes());
        }
        let config = &stage.config.config;
        for part in [&config.user, &config.working_dir, &network] {
            key.text(part.as_bytes());
        }
        if insecure {
            key.text(b"insecure");
        }
        let mut held = Vec::new();
        for mount in &run.mounts {
            held.extend(mounts::hold(self, stage, mount, at, (&mut key, &mut env))?);
        }
        let key = key.finish();
        let created_by = if visible.is_empty() {
            format!("RUN {}", args.join(" "))
        } else {
            let shown: Vec<String> = visible.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("RUN |{} {} {}", visible.len(), shown.join(" "), args.join(" "))
        };
        let history = self.history(stage, created_by);
        if let Some(cached) = self.look_up(&key)? {
            Self::take(stage, cached.layer, history);
            return Ok(());
        }
        for (name, value) in proxies {
            if !has(&env, name) {
                env.push(format!("{name}={value}"));
            }
        }
        let job = Job {
            args,
            env,
            network,
            hosts: self.build.hosts.clone(),
            mounts: held,
            namespace: self.build.namespace,
            latest: self.latest(),
            limits: HostConfig { privileged: insecure, ..self.build.limits.clone() },
        };
        let progress = &mut *self.progress;
        let mut output = |bytes: &[u8]| progress(Event::Output(bytes));
        let (status, own) = run::run(self.engine, &mut self.work, stage, &job, &mut output)?;
        drop(job.mounts);
        let Some(own) = own else {
            let shown = match &run.command {
                Command::Shell(_) => job.args.join(" "),
                Command::Exec(words) => words.join(" "),
            };
            return Err(Error::Build(Box::new(Failure {
                message: format!(
                    "The command '{}' returned a non-zero code: {}",
                    shown.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""),
                    status.code()
                ),
                hint: None,
                lines: None,
                word: None,
                code: status.code(),
            })));
        };
        let record = Cached { layer: Some(own.made.clone()), text: text.to_owned() };
        self.remember(&key, &record)?;
        stage.add(own, history);
        Ok(())
    }
}

/// The program of a `RUN`, with its here-documents.
fn command(run: &Run, shell: &[String]) -> Vec<String> {
    let Command::Shell(line) = &run.command else { return settings::list(&run.command, shell) };
    let Some(first) = run.heredocs.first() else { return settings::list(&run.command, shell) };
    let alone = run.heredocs.len() == 1 && line.starts_with("<<") && !line.contains(char::is_whitespace);
    let script = if alone {
        match first.content.strip_prefix("#!") {
            // The first line names the program that reads it.
            Some(rest) => {
                let (program, _) = rest.split_once('\n').unwrap_or((rest, ""));
                let program = program.trim().to_owned();
                let quoted = first.content.replace('\'', "'\\''");
                format!(
                    "f=$(mktemp) && printf %s '{quoted}' > \"$f\" && {{ {program} \"$f\"; c=$?; rm -f \"$f\"; exit $c; }}"
                )
            }
            None => first.content.clone(),
        }
    } else {
        let mut script = line.clone();
        for heredoc in &run.heredocs {
            script.push('\n');
            script.push_str(&heredoc.content);
            script.push_str(&heredoc.name);
        }
        script
    };
    settings::list(&Command::Shell(script), shell)
}

/// Each variable is looked for among all others.
fn few(variables: usize) -> Result<()> {
    const MOST: usize = 10_000;
    match variables {
        0..=MOST => Ok(()),
        _ => Err(Error::Invalid(format!("more than {MOST} variables"))),
    }
}

fn is_remote(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// `--chown`, against the stage's own users and groups. A number alone is both.
fn owner(view: &super::root::Root, text: &str) -> Result<(u32, u32)> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    match text.split_once(':') {
        None => {
            if let Some(id) = number(text) {
                return Ok((id, id));
            }
        }
        Some((user, group)) => {
            if let (Some(user), Some(group)) = (number(user), number(group)) {
                return Ok((user, group));
            }
        }
    }
    let (passwd, group) = (view.small("etc/passwd", MAX_PASSWD)?, view.small("etc/group", MAX_PASSWD)?);
    let who = user::resolve(text, &[], &passwd, &group)?;
    Ok((who.uid, who.gid))
}
