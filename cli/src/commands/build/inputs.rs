//! Where a build's Dockerfile and context come from: a folder, an archive, standard input, an address.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dhow_engine::Error;
use dhow_engine::build::dockerfile::MAX_SIZE;
use dhow_engine::build::git::Remote;
use dhow_engine::build::ignore::Ignore;
use dhow_engine::build::{NamedContext, Scratch, Secret};
use dhow_engine::images::archive::{LoadOptions, Source, load};
use dhow_engine::images::assemble::extract_archive;
use dhow_engine::images::registry::download;
use dhow_engine::images::{Descriptor, Index, NoProgress};

use super::BuildArgs;
use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::registries;

/// Most bytes of a layout's index.
const MAX_INDEX: u64 = 4 << 20;
/// Most bytes of an ignore file.
const MAX_IGNORE: u64 = 1 << 20;

/// What was found.
pub(super) struct Inputs {
    /// The context, if there is one.
    pub(super) context: Option<PathBuf>,
    /// The Dockerfile's text.
    pub(super) text: String,
    /// Its name, for messages.
    pub(super) name: String,
    /// What of the context is not there.
    pub(super) ignore: Ignore,
    /// The address that the context came from.
    pub(super) address: Option<String>,
    /// The commit, of a git repository.
    pub(super) commit: Option<String>,
    /// Where archives and repositories were put; goes with this.
    kept: std::cell::RefCell<Vec<Scratch>>,
    /// Agents with keys of files.
    pub(super) agents: std::cell::RefCell<Vec<super::agents::Own>>,
}

pub(super) fn find(global: &Global, args: &BuildArgs) -> Result<Inputs> {
    let file_is_input = args.file.as_deref() == Some("-");
    if args.context == "-" && file_is_input {
        return Err(hinted(
            "invalid argument: can't use stdin for both build context and dockerfile",
            "give the context as a folder",
        ));
    }
    let mut unpacked = None;
    let mut sent = None;
    let mut commit = None;
    let remote =
        Remote::parse(&args.context).map_err(|reason| hinted(reason, "see docs/build.md for addresses"))?;
    let is_fetched = remote.is_some() || args.context == "-" || args.context.contains("://");
    let context = match args.context.as_str() {
        _ if remote.is_some() => {
            let remote = remote.as_ref().context("a git repository")?;
            let (folder, found) = cloned(global, remote, &mut unpacked)?;
            commit = Some(found);
            Some(folder)
        }
        "-" => received(global, &mut std::io::stdin().lock(), &mut unpacked, &mut sent)?,
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let mut body = open_url(url)?;
            received(global, &mut body, &mut unpacked, &mut sent)?
        }
        path => {
            let path = std::path::absolute(path)?;
            match fs_err::metadata(&path) {
                Ok(meta) if meta.is_dir() => Some(path),
                Ok(_) => {
                    let message = format!("unable to prepare context: {} is not a directory", args.context);
                    return Err(hinted(
                        message,
                        "give the folder with the files, and the Dockerfile with `-f`",
                    ));
                }
                Err(_) => {
                    let message = format!("unable to prepare context: path \"{}\" not found", args.context);
                    return Err(hinted(message, "give the folder with the Dockerfile; `.` is this one"));
                }
            }
        }
    };
    let (text, name, ignore) = match (sent, &args.file) {
        (Some(text), _) => (text, "Dockerfile".to_owned(), Ignore::default()),
        (None, Some(file)) if file == "-" => {
            let text = limited(&mut std::io::stdin().lock())?;
            (text, "Dockerfile".to_owned(), ignores(context.as_deref(), None, is_fetched)?)
        }
        (None, file) => {
            let path = dockerfile(is_fetched, context.as_deref(), file.as_deref())?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let missing = |error: std::io::Error| {
                let shown = file.clone().unwrap_or_else(|| "Dockerfile".to_owned());
                match error.kind() {
                    std::io::ErrorKind::NotFound => hinted(
                        format!("failed to read dockerfile: open {shown}: no such file or directory"),
                        "name it with `-f FILE`",
                    ),
                    _ => error.into(),
                }
            };
            let text = limited(&mut fs_err::File::open(&path).map_err(missing)?)?;
            (text, name, ignores(context.as_deref(), Some(&path), is_fetched)?)
        }
    };
    let address = is_fetched.then(|| args.context.clone()).filter(|address| address != "-");
    let kept = unpacked.into_iter().collect::<Vec<_>>().into();
    let agents = std::cell::RefCell::default();
    Ok(Inputs { context, text, name, ignore, address, commit, kept, agents })
}

/// A repository in a folder of ours; gives the directory that is meant, and the commit.
fn cloned(global: &Global, remote: &Remote, unpacked: &mut Option<Scratch>) -> Result<(PathBuf, String)> {
    let tree = unpacked.insert(context::engine(global)?.scratch()?).path();
    let commit = super::git::clone(remote, false, &tree)?;
    let Some(below) = &remote.folder else { return Ok((tree, commit)) };
    // Links of the repository may lead there, as long as that is inside.
    let inside = fs_err::canonicalize(tree.join(below))
        .ok()
        .filter(|path| path.is_dir() && fs_err::canonicalize(&tree).is_ok_and(|tree| path.starts_with(tree)));
    let inside = inside.ok_or_else(|| {
        hinted(
            format!("{}: has no directory {below}", remote.address),
            "name one of its directories behind the `:`",
        )
    })?;
    Ok((inside, commit))
}

/// A Dockerfile's path. In an unpacked archive, nothing outside is meant.
fn dockerfile(is_fetched: bool, context: Option<&Path>, file: Option<&str>) -> Result<PathBuf> {
    let is_folder = !is_fetched;
    match (file, context) {
        (Some(file), _) if is_folder => Ok(PathBuf::from(file)),
        (None, Some(context)) if is_folder => {
            let usual = context.join("Dockerfile");
            let lower = context.join("dockerfile");
            Ok(if !usual.exists() && lower.exists() { lower } else { usual })
        }
        (file, Some(context)) => {
            let path = context.join(file.unwrap_or("Dockerfile"));
            let inside = fs_err::canonicalize(&path).is_ok_and(|path| {
                fs_err::canonicalize(context).is_ok_and(|context| path.starts_with(context))
            });
            if inside {
                return Ok(path);
            }
            Err(hinted(
                format!(
                    "failed to read dockerfile: open {}: no such file or directory",
                    file.unwrap_or("Dockerfile")
                ),
                "name a file of the context with `-f FILE`",
            ))
        }
        (_, None) => Err(hinted("there is no Dockerfile", "name it with `-f FILE`")),
    }
}

/// The ignore file of a Dockerfile, else the context's.
fn ignores(context: Option<&Path>, dockerfile: Option<&Path>, is_fetched: bool) -> Result<Ignore> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain(context.map(|context| context.join(".dockerignore"))) {
        // A link of somebody else's context could lead to any file of this host.
        if is_fetched && path.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
            continue;
        }
        let file = match fs_err::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut text = String::new();
        file.take(MAX_IGNORE).read_to_string(&mut text)?;
        return Ignore::parse(&text)
            .map_err(|reason| hinted(format!("{}: {reason}", path.display()), "correct the pattern"));
    }
    Ok(Ignore::default())
}

/// An archive is unpacked, anything else is a Dockerfile.
fn received(
    global: &Global,
    input: &mut dyn Read,
    unpacked: &mut Option<Scratch>,
    sent: &mut Option<String>,
) -> Result<Option<PathBuf>> {
    let mut start = vec![0; 512];
    let mut have = 0;
    while have < start.len() {
        match input.read(&mut start[have..])? {
            0 => break,
            count => have += count,
        }
    }
    start.truncate(have);
    let is_text = std::str::from_utf8(&start).is_ok_and(|text| !text.contains('\0')) || start.is_empty();
    let mut whole = Cursor::new(start).chain(input);
    if is_text {
        *sent = Some(limited(&mut whole)?);
        return Ok(None);
    }
    let folder = unpacked.insert(context::engine(global)?.scratch()?).path();
    fs_err::create_dir(&folder)?;
    if !extract_archive(whole, &folder).map_err(Error::from)? {
        return Err(hinted("the context is neither an archive nor a Dockerfile", "send a tar archive"));
    }
    Ok(Some(folder))
}

fn limited(input: &mut dyn Read) -> Result<String> {
    let mut bytes = Vec::new();
    input.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| hinted("the Dockerfile is not valid UTF-8", "write it as UTF-8"))
}

/// Begins a download.
pub(super) fn open_url(url: &str) -> Result<Box<dyn Read>> {
    let host = url.split("://").nth(1).unwrap_or(url).split(['/', '?', '#']).next().unwrap_or(url);
    // The host's certificates and proxies are those of a registry there.
    let body = download(url, &registries::without_credentials(host)?).map_err(Error::from)?;
    Ok(Box::new(body))
}

/// `--secret id=x,src=y`.
pub(super) fn secret(text: &str) -> Result<(String, Secret)> {
    let (mut id, mut file, mut variable) = (None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => file = Some(PathBuf::from(value)),
            Some(("env", value)) => variable = Some(value.to_owned()),
            Some(("type", "file" | "env")) => {}
            _ => {
                return Err(hinted(
                    format!("invalid secret: {part}"),
                    "write `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`",
                ));
            }
        }
    }
    let id = id.ok_or_else(|| hinted(format!("secret without id: {text}"), "write `id=NAME,src=FILE`"))?;
    let from_env = |name: &str| {
        std::env::var(name).map(Secret::Value).map_err(|_| {
            hinted(format!("secret {id}: the environment has no {name}"), "set it, or use `src=FILE`")
        })
    };
    let secret = match (file, variable) {
        (Some(file), _) => {
            if !file.is_file() {
                return Err(hinted(
                    format!("secret {id}: {}: no such file", file.display()),
                    "name a file with `src=`",
                ));
            }
            Secret::File(file)
        }
        (None, Some(variable)) => from_env(&variable)?,
        (None, None) => from_env(&id)?,
    };
    Ok((id, secret))
}

/// `--build-context name=value`.
pub(super) fn named(global: &Global, inputs: &Inputs, text: &str) -> Result<(String, NamedContext)> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        hinted(format!("invalid context value: {text}, expected key=value"), "write `NAME=PATH`")
    })?;
    let context = if let Some(image) = value.strip_prefix("docker-image://") {
        NamedContext::Image(image.to_owned())
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        NamedContext::Image(from_layout(global, name, layout)?)
    } else if let Some(remote) =
        Remote::parse(value).map_err(|reason| hinted(reason, "see docs/build.md for addresses"))?
    {
        let mut unpacked = None;
        let cloned = cloned(global, &remote, &mut unpacked);
        inputs.kept.borrow_mut().extend(unpacked);
        NamedContext::Directory(cloned?.0)
    } else if value.contains("://") {
        return Err(hinted(
            format!("context {value} is not supported yet"),
            "use a folder, a git repository, `docker-image://IMAGE` or `oci-layout://FOLDER`",
        ));
    } else {
        let path = std::path::absolute(value)?;
        if !path.is_dir() {
            return Err(hinted(
                format!("failed to get build context {name}: {value} is not a directory"),
                "name a folder",
            ));
        }
        NamedContext::Directory(path)
    };
    Ok((name.to_owned(), context))
}

/// Takes an image of an OCI layout, `FOLDER[:TAG|@DIGEST]`, into the store, without a name. Gives its id.
fn from_layout(global: &Global, name: &str, text: &str) -> Result<String> {
    let (folder, wanted) = match text.split_once('@') {
        Some((folder, digest)) => (folder, Some(digest)),
        None => match text.rsplit_once(':') {
            Some((folder, tag)) if !tag.contains(['/', '\\']) => (folder, Some(tag)),
            _ => (text, None),
        },
    };
    let path = Path::new(folder);
    let mut bytes = Vec::new();
    let opened = fs_err::File::open(path.join("index.json"))
        .and_then(|file| file.take(MAX_INDEX).read_to_end(&mut bytes));
    opened.map_err(|error| {
        hinted(format!("context {name}: {error}"), "name the folder of an OCI image layout")
    })?;
    let index = Index::parse(path.display(), &bytes).map_err(Error::from)?;
    let tag_of = |entry: &Descriptor| entry.annotations.get("org.opencontainers.image.ref.name").cloned();
    let fits = |entry: &&Descriptor| match wanted {
        Some(wanted) => entry.digest.to_string() == wanted || tag_of(entry).as_deref() == Some(wanted),
        None => index.manifests.len() == 1 || tag_of(entry).as_deref() == Some("latest"),
    };
    let Some(found) = index.manifests.iter().find(fits) else {
        let has: Vec<String> = index
            .manifests
            .iter()
            .map(|entry| tag_of(entry).unwrap_or_else(|| entry.digest.to_string()))
            .collect();
        return Err(hinted(
            format!("context {name}: {folder} has no image {}", wanted.unwrap_or("latest")),
            format!("it has {}", has.join(", ")),
        ));
    };
    let engine = context::engine(global)?;
    let options = LoadOptions { unpack: false, names: false, ..LoadOptions::default() };
    load(engine.store(), Source::Path(path), &options, &NoProgress).map_err(Error::from)?;
    Ok(found.digest.to_string())
}
