//! The verbs `checkpoint` and `restore`.

use std::path::PathBuf;

use dhow_engine::runtime::oci::checkpoint::{Groups, Request, Wishes};
use dhow_engine::runtime::oci::{Container, foreground, restore as back};

use super::args::{Flag, Given, switch, value};
use super::verbs::{CREATE, complain, only_these, request};
use super::{Failure, Global, Outcome, failed};
use crate::ui::Ui;

/// The name of the image's folder when none is given.
const IMAGES: &str = "checkpoint";

const BOTH: [Flag; 10] = [
    value("image-path", ""),
    value("work-path", ""),
    switch("tcp-established", ""),
    switch("ext-unix-sk", ""),
    switch("shell-job", ""),
    switch("file-locks", ""),
    value("manage-cgroups-mode", ""),
    value("empty-ns", ""),
    switch("auto-dedup", ""),
    switch("lazy-pages", ""),
];

fn wishes(global: &Global, given: &Given) -> Result<Wishes, Failure> {
    let groups = match given.text("manage-cgroups-mode").unwrap_or_default() {
        "" | "soft" => Groups::Soft,
        "full" => Groups::Full,
        "strict" => Groups::Strict,
        "ignore" => Groups::Ignore,
        other => return Err(failed(format!("invalid manage-cgroups-mode {other:?}"))),
    };
    if let Some(other) = given.all("empty-ns").find(|name| *name != "network") {
        return Err(failed(format!("namespace {other} is not supported")));
    }
    let path = |name: &str| given.text(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(Wishes {
        criu: global.criu.clone(),
        images: path("image-path").unwrap_or_else(|| PathBuf::from(IMAGES)),
        work: path("work-path"),
        tcp_established: given.has("tcp-established"),
        external_sockets: given.has("ext-unix-sk"),
        shell_job: given.has("shell-job"),
        file_locks: given.has("file-locks"),
        groups,
        empty_network: given.text("empty-ns").is_some(),
        auto_dedup: given.has("auto-dedup"),
        lazy_pages: given.has("lazy-pages"),
    })
}

/// `checkpoint`
pub(super) fn checkpoint(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let own = [
        value("parent-path", ""),
        switch("leave-running", ""),
        switch("pre-dump", ""),
        value("status-fd", ""),
        value("page-server", ""),
    ];
    let known: Vec<Flag> = BOTH.into_iter().chain(own).collect();
    let given = Given::parse(&known, words, None)?;
    let page_server = given.text("page-server").map(|text| {
        let (address, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let port =
            port.parse().map_err(|_| failed("use --page-server ADDRESS:PORT to specify page server"))?;
        Ok::<_, Failure>((address.to_owned(), port))
    });
    let status = given.number::<i64>("status-fd")?.filter(|number| *number >= 0);
    let request = Request {
        wishes: wishes(global, &given)?,
        leave_running: given.has("leave-running"),
        pre_dump: given.has("pre-dump"),
        parent: given.text("parent-path").map(PathBuf::from),
        page_server: page_server.transpose()?,
        status: status.and_then(|number| u32::try_from(number).ok()),
    };
    let mut container = Container::open(&global.root, given.id("checkpoint")?)?;
    container.checkpoint(&request)?;
    if !(request.leave_running || request.pre_dump) {
        // Its lock is held by `container`.
        drop(container);
        let container = Container::open(&global.root, given.id("checkpoint")?)?;
        complain(ui, global, &container.delete(true)?);
    }
    Ok(0)
}

/// `restore`
pub(super) fn restore(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let own = [
        switch("detach", "d"),
        switch("keep", ""),
        switch("no-subreaper", ""),
        value("lsm-profile", ""),
        value("lsm-mount-context", ""),
    ];
    let known: Vec<Flag> = CREATE.into_iter().chain(BOTH).chain(own).collect();
    let given = Given::parse(&known, words, None)?;
    only_these(0)?;
    let text = |name: &str| given.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let detach = given.has("detach");
    let request = back::Request {
        container: request(global, &given, "restore")?,
        wishes: wishes(global, &given)?,
        detach,
        adopts: !detach && !given.has("no-subreaper"),
        lsm_profile: text("lsm-profile"),
        lsm_mount_context: text("lsm-mount-context"),
    };
    if detach {
        // Who lets go of it does not end it.
        drop(back::restore(&request)?);
        return Ok(0);
    }
    let signals = foreground::watch()?;
    let (code, complaints) = back::restore(&request)?.attend(&signals, given.has("keep"))?;
    complain(ui, global, &complaints);
    Ok(code)
}
